"""Secrets in memory that can be wiped, do not print, and compare in constant time.

Rules (protocol.md §3, §8.5):

1. The bytes live in one bytearray; ``wipe`` overwrites it. What the interpreter or a C library
   copied on the way is out of reach; callers keep such copies few and short-lived.
2. ``repr`` and ``str`` say how long the secret is and nothing else; pickling and copying refuse.
3. Text that is no 32 random bytes is refused: ids derived from secrets are public, so a guessable
   secret would be found by trying.
"""

from __future__ import annotations

import hmac
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn, Self, SupportsIndex

from zipnet.errors import ConfigError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = [
    "SECRET_BYTES",
    "SECRET_TEXT_PREFIX",
    "Secret",
    "format_secret_text",
    "parse_secret_text",
]

SECRET_BYTES = 32
SECRET_TEXT_PREFIX = "zipnet-secret-1:"  # noqa: S105 - the label of the format, not a secret

# 32 random bytes have fewer than 20 distinct values, or 16 distinct steps between neighbours, with
# a chance below 2^-30; repeated, counted and typed-in patterns have far fewer.
_MIN_DISTINCT_BYTES = 20
_MIN_DISTINCT_STEPS = 16


class Secret:
    """Bytes that must not leak: wipeable, silent, unhashable, compared in constant time.

    Args:
        data: The secret; it is copied. Use :meth:`take` to move a bytearray in instead.
    """

    __slots__ = ("_data", "_wiped")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytearray(data)
        self._wiped = False

    @classmethod
    def take(cls, data: bytearray) -> Secret:
        """Move a buffer in: the secret keeps a copy and ``data`` is overwritten with zeros."""
        secret = cls(data)
        data[:] = bytes(len(data))
        return secret

    @classmethod
    def random(cls, draw: Callable[[int], bytes], size: int = SECRET_BYTES) -> Secret:
        """Draw ``size`` fresh bytes.

        Args:
            draw: Source of randomness, such as ``os.urandom``.
            size: Length in bytes.

        Raises:
            LocalProtocolError: When the source returns another number of bytes.
        """
        data = draw(size)
        if len(data) != size:
            raise LocalProtocolError(f"randomness source gave {len(data)} bytes instead of {size}")
        return cls(data)

    @contextmanager
    def reveal(self) -> Iterator[memoryview]:
        """Lend the bytes as a read-only view that is released when the ``with`` block ends.

        Raises:
            LocalProtocolError: When the secret has been wiped.
        """
        if self._wiped:
            raise LocalProtocolError("a wiped secret was used")
        with memoryview(self._data) as whole, whole.toreadonly() as view:
            yield view

    def wipe(self) -> None:
        """Overwrite the bytes with zeros; the secret cannot be used afterwards. Idempotent."""
        self._data[:] = bytes(len(self._data))
        self._wiped = True

    def close(self) -> None:
        """Wipe the secret (the name ``contextlib.closing`` and ``with`` expect)."""
        self.wipe()

    @property
    def wiped(self) -> bool:
        """Whether the bytes are gone."""
        return self._wiped

    def __enter__(self) -> Self:
        """Return the secret itself; leaving the block wipes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wipe the secret."""
        self.wipe()

    def __del__(self) -> None:
        """Wipe on garbage collection, as a last resort."""
        if hasattr(self, "_data"):
            self.wipe()

    def __len__(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        """Compare with another secret in constant time.

        Raises:
            LocalProtocolError: When either has been wiped.
        """
        if not isinstance(other, Secret):
            return NotImplemented
        with self.reveal() as mine, other.reveal() as theirs:
            return hmac.compare_digest(mine, theirs)

    def __repr__(self) -> str:
        """Name the length and hide the rest."""
        return f"<Secret of {len(self._data)} bytes>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse pickling and copying."""
        raise TypeError("a Secret can be neither pickled nor copied")


def format_secret_text(secret: Secret) -> str:
    """Write a 32-byte secret the way ``zipnet keygen`` does: prefix and 64 hexadecimal digits.

    Raises:
        LocalProtocolError: When the secret is not 32 bytes long or has been wiped.
    """
    if len(secret) != SECRET_BYTES:
        raise LocalProtocolError(f"secret has {len(secret)} bytes, {SECRET_BYTES} are due")
    with secret.reveal() as view:
        return SECRET_TEXT_PREFIX + view.hex()


def parse_secret_text(text: str, *, what: str) -> Secret:
    """Read what :func:`format_secret_text` wrote; one trailing newline is allowed.

    Args:
        text: The text. It never appears in an error.
        what: Name of the setting, for the error.

    Raises:
        ConfigError: When the text has another shape or is not 32 random bytes (protocol.md §3).
    """
    hint = "write one with `zipnet keygen`"
    body = text.removesuffix("\n").removesuffix("\r")
    if not body.startswith(SECRET_TEXT_PREFIX):
        raise ConfigError(
            f"{what} has {len(body)} characters and does not start with {SECRET_TEXT_PREFIX!r}",
            hint=hint,
        )
    digits = body[len(SECRET_TEXT_PREFIX) :]
    if len(digits) != 2 * SECRET_BYTES or not set(digits) <= set("0123456789abcdef"):
        raise ConfigError(
            f"{what} has {len(digits)} characters after its prefix, "
            f"{2 * SECRET_BYTES} lower-case hexadecimal digits are due",
            hint=hint,
        )
    data = bytearray.fromhex(digits)
    if _looks_made_up(data):
        raise ConfigError(f"{what} is not {SECRET_BYTES} random bytes", hint=hint)
    return Secret.take(data)


def _looks_made_up(data: bytearray) -> bool:
    """Whether the bytes repeat, count up or spell something."""
    steps = {(b - a) % 256 for a, b in pairwise(data)}
    return (
        len(set(data)) < _MIN_DISTINCT_BYTES
        or len(steps) < _MIN_DISTINCT_STEPS
        or all(0x20 <= byte < 0x7F for byte in data)  # noqa: PLR2004 - printable ASCII
    )
