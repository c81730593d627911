"""Key custody of a committee server: KEM keys and client chains, durable and erased on time.

protocol.md §4.1, §4.2, §8. Everything that could unblind a past round lives here and nowhere else.

Rules:

1. A chain is stepped past every closed round; the old key is overwritten in memory and on disk
   before the step counts as done. The disk never goes back to an older state.
2. A KEM seed is erased one epoch after its own (the grace period); registrations recorded on the
   wire can be opened exactly that long.
3. The state is written alternately to two files. After the newer one is durable the older one is
   overwritten with zeros in place, so a file system that overwrites in place keeps no old key.
   (A copy-on-write file system or a flash drive may; docs/protocol.md §4 says so.)
4. Nothing here is ever logged; errors name counts and rounds, never keys.

File layout (big-endian)::

    "ZNCUSTOD" ‖ version u16 ‖ generation u64 ‖ group 32 ‖ next round u64
    ‖ count u16 ‖ (epoch u64 ‖ seed 32 ‖ announcement digest 32)*
    ‖ count u32 ‖ (index u64 ‖ round u64 ‖ chain key 32)* ‖ check 32

Methods block (they fsync and compute pads); the node calls them from one worker thread, in order.
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from blake3 import blake3

from zipnet.errors import ConfigError, GuardError, RemoteProtocolError, SafeMode, StorageError
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber
from zipnet.protocol.kem import KemKeyPair
from zipnet.protocol.ratchet import CHAIN_KEY_BYTES, initial_chain_key, pad_key, skip, step
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import GroupId
    from zipnet.protocol.pads import PadEngine
    from zipnet.protocol.params import RoundParams
    from zipnet.protocol.participants import Participants

__all__ = ["CUSTODY_NAMES", "CustodyFiles", "CustodyStore", "KemEntry", "KeyCustody"]

_MAGIC: Final = b"ZNCUSTOD"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sHQ32sQ")
_KEM: Final = struct.Struct(">Q32s32s")
_CHAIN: Final = struct.Struct(">QQ32s")
_CHECK_BYTES: Final = 32
_SEED_BYTES: Final = 32
CUSTODY_NAMES: Final = ("custody-a.keys", "custody-b.keys")
_KEPT_EPOCHS: Final = 2


@dataclass(frozen=True, slots=True)
class KemEntry:
    """A held KEM key: its epoch and the digest of its announcement blob."""

    epoch: int
    announcement: Digest


class CustodyStore(Protocol):
    """Where a custody's state outlives the process, or does not."""

    @property
    def durable(self) -> bool:
        """False where nothing is stored; then no state is laid out for it either."""
        ...

    def load(self) -> bytearray | None:
        """Return the newest state; the caller wipes it."""
        ...

    def store(self, data: bytearray) -> None:
        """Make a state durable; SafeMode when that fails, now or earlier."""
        ...

    def close(self) -> None:
        """Let go of whatever is open."""
        ...


class _Chain:
    __slots__ = ("key", "round")

    def __init__(self, key: bytearray, round_number: int) -> None:
        self.key = key
        self.round = round_number


class KeyCustody:
    """Holds this server's unblinding secrets.

    Args:
        files: Where they are durable.
        group: The group they belong to; a state of another group is refused.
        max_skip_rounds: Bound on how far a late chain is stepped at once.
    """

    def __init__(self, files: CustodyStore, *, group: GroupId, max_skip_rounds: int) -> None:
        self._files = files
        self._group = group
        self._max_skip = max_skip_rounds
        self._generation = 0
        self._next_round = RoundNumber(1)
        self._kem: dict[int, tuple[Secret, Digest]] = {}
        self._chains: dict[RegistryIndex, _Chain] = {}
        self._retired: set[RegistryIndex] = set()
        newest = files.load()
        if newest is not None:
            try:
                self._decode(newest)
            finally:
                _wipe(newest)

    @property
    def chain_count(self) -> int:
        """How many clients' chains are held."""
        return len(self._chains)

    def kem_entry(self, epoch: int) -> KemEntry | None:
        """Return what is held for an epoch."""
        held = self._kem.get(epoch)
        return None if held is None else KemEntry(epoch, held[1])

    def add_kem(self, epoch: int, seed: Secret, announcement: Digest) -> None:
        """Hold a new epoch's seed durably, and erase those past their grace period."""
        self._kem[epoch] = (seed, announcement)
        for old in sorted(self._kem)[:-_KEPT_EPOCHS]:
            self._kem.pop(old)[0].wipe()
        self._persist()

    def holds(self, index: RegistryIndex) -> bool:
        """Tell whether a client's chain is held."""
        return index in self._chains

    def admit(
        self, index: RegistryIndex, first_round: RoundNumber, epoch: int, ciphertext: bytes
    ) -> bool:
        """Begin a client's chain from its ciphertext; False when that cannot be done.

        It cannot where the epoch's key is gone, the ciphertext gives no secret (a client can make
        it so), or the chain began more rounds ago than chains are stepped at once.

        The chain becomes durable with the next step or the next KEM key, whichever is first.
        Until then a restart begins it again from the kept registration, and ends at the same key.
        """
        if index in self._chains:
            return True
        held = self._kem.get(epoch)
        if held is None or self._next_round - first_round > self._max_skip:
            return False
        pair = KemKeyPair.from_seed(held[0])
        try:
            shared = pair.decapsulate(ciphertext)
        except RemoteProtocolError:
            return False
        finally:
            pair.close()
        try:
            key = initial_chain_key(self._group, epoch, shared)
        finally:
            shared.wipe()
        chain = _Chain(key, first_round)
        self._advance(chain)
        self._chains[index] = chain
        return True

    def retire(self, index: RegistryIndex) -> None:
        """Erase a chain when the round under way is closed (it may still be needed for it)."""
        if index in self._chains:
            self._retired.add(index)

    def retire_others(self, kept: AbstractSet[RegistryIndex]) -> None:
        """Erase every chain but those of ``kept``, as :meth:`retire` does."""
        self._retired.update(self._chains.keys() - kept)

    def step_past(self, round_number: RoundNumber) -> None:
        """Step every chain past a closed round and erase what was, durably.

        Raises:
            SafeMode: When the stepped chains could not be made durable.
        """
        if round_number < self._next_round:
            return
        self._next_round = RoundNumber(round_number + 1)
        for index in self._retired:
            _wipe(self._chains.pop(index).key)
        self._retired.clear()
        for chain in self._chains.values():
            self._advance(chain)
        self._persist()

    def _advance(self, chain: _Chain) -> None:
        behind = self._next_round - chain.round
        if behind == 1:
            step(chain.key)
        elif behind > 1:
            skip(chain.key, behind, limit=self._max_skip)
        chain.round = max(chain.round, self._next_round)

    def unblind(
        self,
        header: RoundHeader,
        participants: Participants,
        params: RoundParams,
        engine: PadEngine,
    ) -> bytearray:
        """Return the XOR of this server's pads for exactly these participants.

        Raises:
            GuardError: When a chain is missing or stands at another round.
        """
        body = bytearray(params.body_bytes)
        header_hash = header.hash
        for index in participants:
            chain = self._chains.get(index)
            if chain is None or chain.round != header.round:
                raise GuardError(f"a chain that round {header.round} needs is not held here")
            key = pad_key(chain.key, header_hash)
            try:
                engine.apply(body, key)
            finally:
                _wipe(key)
        return body

    def close(self) -> None:
        """Wipe everything from memory and let the files go."""
        for chain in self._chains.values():
            _wipe(chain.key)
        for seed, _ in self._kem.values():
            seed.wipe()
        self._chains.clear()
        self._kem.clear()
        self._files.close()

    def _persist(self) -> None:
        if not self._files.durable:
            return
        self._generation += 1
        data = self._encode()
        try:
            self._files.store(data)
        finally:
            _wipe(data)

    def _encode(self) -> bytearray:
        """Write the state into one buffer of its final size: one that grew left keys behind."""
        count = len(self._kem)
        size = _HEAD.size + 2 + count * _KEM.size + 4 + len(self._chains) * _CHAIN.size
        data = bytearray(size + _CHECK_BYTES)
        head = (_MAGIC, _VERSION, self._generation, self._group, self._next_round)
        _HEAD.pack_into(data, 0, *head)
        struct.pack_into(">H", data, _HEAD.size, count)
        at = _HEAD.size + 2
        for epoch, (seed, announcement) in sorted(self._kem.items()):
            _KEM.pack_into(data, at, epoch, bytes(_SEED_BYTES), announcement)
            with seed.reveal() as view:
                data[at + 8 : at + 8 + _SEED_BYTES] = view
            at += _KEM.size
        struct.pack_into(">I", data, at, len(self._chains))
        at += 4
        for index, chain in self._chains.items():
            _CHAIN.pack_into(data, at, index, chain.round, chain.key)
            at += _CHAIN.size
        with memoryview(data) as view, view[:size] as state:
            check = _check(state)
        data[size:] = check
        return data

    def _decode(self, data: bytearray) -> None:
        try:
            end = self._read_state(data)
        except struct.error:
            end = -1
        if end != len(data) - _CHECK_BYTES:
            # Its check held, so no disk did this: somebody wrote it, or a defect of ours.
            raise StorageError(
                "key custody is damaged: its state does not parse",
                hint="this server must join again with fresh keys and an empty state folder",
            )

    def _read_state(self, data: bytearray) -> int:
        """Take everything out of a state; returns where it ends."""
        magic, version, generation, group, next_round = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise StorageError(f"key custody has version {version}, this program writes {_VERSION}")
        if not hmac.compare_digest(group, self._group):
            raise ConfigError(
                "the keys in the state folder belong to another instance",
                hint="use the state folder that was made for this instance",
            )
        self._generation, self._next_round = generation, RoundNumber(next_round)
        offset = _HEAD.size
        (count,) = struct.unpack_from(">H", data, offset)
        offset += 2
        for _ in range(count):
            # Slices of a bytearray are bytearrays; what `struct` unpacks could not be wiped.
            (epoch,) = struct.unpack_from(">Q", data, offset)
            seed = data[offset + 8 : offset + 8 + _SEED_BYTES]
            announcement = bytes(data[offset + 8 + _SEED_BYTES : offset + _KEM.size])
            if len(announcement) != _CHECK_BYTES:
                raise struct.error("a KEM key is cut off")
            self._kem[epoch] = (Secret.take(seed), Digest(announcement))
            offset += _KEM.size
        (count,) = struct.unpack_from(">I", data, offset)
        offset += 4
        for _ in range(count):
            index, round_number = struct.unpack_from(">QQ", data, offset)
            key = data[offset + 16 : offset + _CHAIN.size]
            if len(key) != CHAIN_KEY_BYTES:
                raise struct.error("a chain key is cut off")
            self._chains[RegistryIndex(index)] = _Chain(key, round_number)
            offset += _CHAIN.size
        return offset


class CustodyFiles:
    """The two alternating files of rule 3.

    Args:
        folder: Their folder; must exist.

    Raises:
        StorageError: When the files cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: list[int] = []
        self._active = 1
        self._failed = False
        try:
            for name in CUSTODY_NAMES:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptors.append(os.open(folder / name, flags, 0o600))
            _sync_folder(folder)
        except OSError as error:
            self.close()
            raise StorageError(f"cannot open key custody: {error.strerror}") from error

    @property
    def durable(self) -> bool:
        """True."""
        return True

    def load(self) -> bytearray | None:
        """Return the newest sound state, written once more, and scrub the other file.

        Written once more: after a failed fsync the page cache may show a state that never reached
        the disk, and the older one must not be scrubbed before this one is there.

        Raises:
            StorageError: When neither file is sound although one has content.
        """
        try:
            found = [self._read(position) for position in range(len(CUSTODY_NAMES))]
        except OSError as error:
            raise StorageError(f"key custody cannot be read: {error.strerror}") from error
        sound = [(s, p) for p, s in enumerate(found) if s is not None]
        if not sound:
            if any(self._has_content(position) for position in range(len(CUSTODY_NAMES))):
                raise StorageError(
                    "key custody is damaged: neither copy is whole",
                    hint="this server must join again with fresh keys and an empty state folder",
                )
            return None
        newest, self._active = max(sound, key=lambda item: _generation(item[0]))
        for state, position in sound:
            if position != self._active:
                _wipe(state)
        try:
            self._write(self._active, newest)
            os.fsync(self._descriptors[self._active])
            self._scrub(1 - self._active)
        except OSError as error:
            _wipe(newest)
            raise StorageError(f"key custody cannot be settled: {error.strerror}") from error
        return newest

    def store(self, data: bytearray) -> None:
        """Write a state durably to the inactive file, then scrub the other.

        Raises:
            SafeMode: When either could not be done, now or earlier.
        """
        if self._failed:
            raise SafeMode("key custody takes no more writes")
        self._failed = True
        target = 1 - self._active
        try:
            self._write(target, data)
            os.ftruncate(self._descriptors[target], len(data))
            os.fsync(self._descriptors[target])
            self._scrub(self._active)
        except OSError as error:
            raise SafeMode(
                f"the stepped keys could not be made durable: {error.strerror}",
                hint="check the disk and its free space, then restart the node",
            ) from error
        self._active = target
        self._failed = False

    def close(self) -> None:
        """Close both files. Idempotent."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _read(self, position: int) -> bytearray | None:
        descriptor = self._descriptors[position]
        size = os.fstat(descriptor).st_size
        if size < _HEAD.size + _CHECK_BYTES:
            return None
        data = bytearray(size)
        if os.preadv(descriptor, [data], 0) != size:
            return None
        body, check = memoryview(data)[:-_CHECK_BYTES], bytes(data[-_CHECK_BYTES:])
        sound = hmac.compare_digest(_check(body), check)
        body.release()
        return data if sound else None

    def _has_content(self, position: int) -> bool:
        descriptor = self._descriptors[position]
        return any(os.pread(descriptor, os.fstat(descriptor).st_size, 0))

    def _write(self, position: int, data: bytearray) -> None:
        offset = 0
        with memoryview(data) as view:
            while offset < len(data):
                taken = os.pwrite(self._descriptors[position], view[offset:], offset)
                if taken <= 0:
                    raise OSError("the file took no bytes")
                offset += taken

    def _scrub(self, position: int) -> None:
        size = os.fstat(self._descriptors[position]).st_size
        if size:
            self._write(position, bytearray(size))
            os.fsync(self._descriptors[position])


def _generation(state: bytearray) -> int:
    generation: int = _HEAD.unpack_from(state)[2]
    return generation


def _check(data: bytearray | memoryview) -> bytes:
    return blake3(data, derive_key_context="zipnet/v1/custody").digest()


def _wipe(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
