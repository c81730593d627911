"""Pad encryption in place: XOR-ing a pad *is* encrypting the accumulator (protocol.md §2, §4.4).

Rules:

1. The pad is AES-256-CTR with counter blocks ``nonce12 ‖ BE32(2…)``. The nonce is zero because each
   pad key is fresh. AES-GCM has the same keystream, so the faster of the two is used.
2. A pad never exists as bytes: the cipher reads and writes the caller's buffer.
3. No mode is used before it has been proved equal to a reference that shares nothing with it but
   the AES block; where the library refuses to work in place a scratch buffer steps in, which only
   ever holds what the caller's buffer holds next.

Example:
    ``engine = PadEngine.calibrate(time.perf_counter); engine.apply(body, pad_key(chain, header))``
"""

from __future__ import annotations

from enum import Enum
from statistics import median
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from zipnet.errors import GuardError, LocalProtocolError
from zipnet.protocol.params import RoundParams
from zipnet.protocol.ratchet import PAD_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zipnet.protocol.encoding import Buffer

__all__ = ["MAX_PAD_BYTES", "PadEngine", "PadMode"]

MAX_PAD_BYTES = 64 * 1024 * 1024
"""Longest buffer of one pad key; far below the 2^32 blocks after which CTR and GCM differ."""

_NONCE = bytes(12)
_FIRST_COUNTER = 2
_BLOCK = 16
_SELF_TEST_LENGTHS = (0, 1, 15, 16, 17, 4096, 17_408)
_TRIALS = 15


class PadMode(Enum):
    """Which call of the library makes the keystream."""

    CTR = "aes-256-ctr"
    GCM = "aes-256-gcm"


class PadEngine:
    """Applies pads; one engine serves a whole process.

    Args:
        mode: Which call makes the keystream.
        in_place: Whether the library may read and write one buffer; False takes a scratch buffer.

    Raises:
        GuardError: When this mode does not equal the reference on this machine.
    """

    __slots__ = ("_in_place", "_mode")

    def __init__(self, mode: PadMode = PadMode.CTR, *, in_place: bool = True) -> None:
        self._mode = mode
        self._in_place = in_place
        self._self_test()

    @classmethod
    def calibrate(
        cls, timer: Callable[[], float], *, body_bytes: int = RoundParams().body_bytes
    ) -> PadEngine:
        """Measure both modes at the group's body size and return the faster engine.

        Args:
            timer: A stopwatch such as ``time.perf_counter``, in any unit.
            body_bytes: Length of the buffers that will be encrypted.

        Raises:
            GuardError: When neither mode equals the reference on this machine.
        """
        engines = [engine for mode in PadMode if (engine := _engine_for(mode)) is not None]
        if not engines:
            raise GuardError("no pad cipher of this machine's library equals the reference")
        buffer = bytearray(body_bytes)
        times: dict[PadEngine, list[float]] = {engine: [] for engine in engines}
        # Interleaved, so that a change of clock speed half-way favours neither.
        for _ in range(_TRIALS):
            for engine, samples in times.items():
                begin = timer()
                engine.apply(buffer, bytes(PAD_KEY_BYTES))
                samples.append(timer() - begin)
        return min(times, key=lambda engine: median(times[engine]))

    @property
    def name(self) -> str:
        """Name of the mode, for logs and ``doctor``: such as ``aes-256-gcm in place``."""
        return f"{self._mode.value} {'in place' if self._in_place else 'by scratch buffer'}"

    @property
    def mode(self) -> PadMode:
        """Which call makes the keystream."""
        return self._mode

    def apply(self, buffer: bytearray, pad_key: Buffer) -> None:
        """XOR the pad of ``pad_key`` into ``buffer``; applying it twice restores the buffer.

        Args:
            buffer: Round vector or accumulator, changed in place, at most :data:`MAX_PAD_BYTES`.
            pad_key: 32 bytes from :func:`zipnet.protocol.ratchet.pad_key`.

        Raises:
            LocalProtocolError: When key or buffer has a wrong length.
        """
        if len(pad_key) != PAD_KEY_BYTES or len(buffer) > MAX_PAD_BYTES:
            raise LocalProtocolError(
                f"pad key of {len(pad_key)} bytes for a buffer of {len(buffer)} bytes"
            )
        encryptor = Cipher(algorithms.AES(pad_key), _cipher_mode(self._mode)).encryptor()
        if self._in_place:
            encryptor.update_into(buffer, buffer)
        else:
            scratch = bytearray(len(buffer))
            encryptor.update_into(buffer, scratch)
            buffer[:] = scratch

    def apply_many(self, buffer: bytearray, keys: Iterable[Buffer]) -> int:
        """Apply one pad for each key and return how many there were.

        Raises:
            LocalProtocolError: As :meth:`apply`; pads of the keys before the bad one stay applied.
        """
        count = 0
        for key in keys:
            self.apply(buffer, key)
            count += 1
        return count

    def _self_test(self) -> None:
        for length in _SELF_TEST_LENGTHS:
            key = bytes((length + step) % 256 for step in range(PAD_KEY_BYTES))
            buffer = bytearray(step % 251 for step in range(length))
            expected = _reference(bytes(buffer), key)
            self.apply(buffer, key)
            if buffer != expected:
                raise GuardError(f"pad cipher {self.name} differs from the reference")


def _engine_for(mode: PadMode) -> PadEngine | None:
    """Return the first way to run a mode that passes the self-test; in place comes first."""
    for in_place in (True, False):
        try:
            return PadEngine(mode, in_place=in_place)
        except (GuardError, ValueError, BufferError):
            # ValueError and BufferError are how a library says that it does not work in place.
            continue
    return None


def _cipher_mode(mode: PadMode) -> modes.CTR | modes.GCM:
    match mode:
        case PadMode.CTR:
            return modes.CTR(_NONCE + _FIRST_COUNTER.to_bytes(4, "big"))
        case PadMode.GCM:
            return modes.GCM(_NONCE)


def _reference(data: bytes, key: bytes) -> bytes:
    """Encrypt by hand: single AES blocks of spelled-out counters, XORed as integers."""
    blocks = -(-len(data) // _BLOCK)
    counters = b"".join(_NONCE + (_FIRST_COUNTER + i).to_bytes(4, "big") for i in range(blocks))
    # ECB on counters is how CTR is defined; nothing of the caller passes through it.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    pad = (encryptor.update(counters) + encryptor.finalize())[: len(data)]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
    return mixed.to_bytes(len(data), "big")
