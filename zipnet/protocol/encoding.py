"""Hand-laid byte layouts: what is hashed, MACed or signed is written with these two classes.

Rules:

1. Integers are big-endian and of fixed width; there is one way to write a value.
2. Variable parts carry their length in front, and a reader states the most it will take.
3. A reader ends with :meth:`Reader.finish`; trailing bytes are refused.
4. Bytes from outside that do not fit raise :class:`~zipnet.errors.RemoteProtocolError`; values of
   our own that do not fit raise :class:`~zipnet.errors.LocalProtocolError`.
"""

from __future__ import annotations

from typing import TypeAlias

from zipnet.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["Buffer", "Reader", "Writer"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Writer:
    """Lay out fields one after the other; every method returns the writer.

    Example:
        ``Writer().u8(1).u64(round_number).fixed(digest, 32).take()``
    """

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def _integer(self, value: int, size: int) -> Writer:
        if not 0 <= value < 1 << (8 * size):
            raise LocalProtocolError(f"value does not fit an unsigned {8 * size}-bit field")
        self._data += value.to_bytes(size, "big")
        return self

    def u8(self, value: int) -> Writer:
        """Append one byte. Raises LocalProtocolError when the value does not fit."""
        return self._integer(value, 1)

    def u16(self, value: int) -> Writer:
        """Append two bytes, big-endian. Raises LocalProtocolError when the value does not fit."""
        return self._integer(value, 2)

    def u32(self, value: int) -> Writer:
        """Append four bytes, big-endian. Raises LocalProtocolError when the value does not fit."""
        return self._integer(value, 4)

    def u64(self, value: int) -> Writer:
        """Append eight bytes, big-endian. Raises LocalProtocolError when the value does not fit."""
        return self._integer(value, 8)

    def fixed(self, value: Buffer, size: int) -> Writer:
        """Append exactly ``size`` bytes. Raises LocalProtocolError for any other length."""
        if len(value) != size:
            raise LocalProtocolError(f"field has {len(value)} bytes, {size} are due")
        self._data += value
        return self

    def var16(self, value: Buffer) -> Writer:
        """Append a 16-bit length and the bytes. Raises LocalProtocolError past 65,535 bytes."""
        self.u16(len(value))
        self._data += value
        return self

    def var32(self, value: Buffer) -> Writer:
        """Append a 32-bit length and the bytes. Raises LocalProtocolError past 4 GiB."""
        self.u32(len(value))
        self._data += value
        return self

    def text16(self, value: str) -> Writer:
        """Append a string as UTF-8 with a 16-bit length.

        Raises:
            LocalProtocolError: When it is longer than 65,535 bytes or holds lone surrogates.
        """
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("text cannot be written as UTF-8") from None
        return self.var16(encoded)

    def take(self) -> bytes:
        """Return everything written so far."""
        return bytes(self._data)


class Reader:
    """Take fields one after the other off bytes that came from outside.

    Args:
        data: The bytes. They are not copied; results are.

    Every method raises :class:`~zipnet.errors.RemoteProtocolError` when the input is too short or
    a length is over its cap.
    """

    __slots__ = ("_offset", "_view")

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._offset = 0

    def _take(self, size: int) -> memoryview:
        end = self._offset + size
        if end > len(self._view):
            raise RemoteProtocolError("input ends in the middle of a field")
        part = self._view[self._offset : end]
        self._offset = end
        return part

    def u8(self) -> int:
        """Take one byte."""
        return int.from_bytes(self._take(1), "big")

    def u16(self) -> int:
        """Take two bytes, big-endian."""
        return int.from_bytes(self._take(2), "big")

    def u32(self) -> int:
        """Take four bytes, big-endian."""
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        """Take eight bytes, big-endian."""
        return int.from_bytes(self._take(8), "big")

    def fixed(self, size: int) -> bytes:
        """Take exactly ``size`` bytes."""
        return bytes(self._take(size))

    def var16(self, *, max_len: int = 0xFFFF) -> bytes:
        """Take a 16-bit length and that many bytes, at most ``max_len``."""
        return self._capped(self.u16(), max_len)

    def var32(self, *, max_len: int) -> bytes:
        """Take a 32-bit length and that many bytes, at most ``max_len``."""
        return self._capped(self.u32(), max_len)

    def _capped(self, size: int, max_len: int) -> bytes:
        if size > max_len:
            raise RemoteProtocolError(f"field announces {size} bytes, at most {max_len} are taken")
        return bytes(self._take(size))

    def text16(self, max_len: int = 0xFFFF) -> str:
        """Take a string written by :meth:`Writer.text16`, at most ``max_len`` bytes of UTF-8."""
        try:
            return self.var16(max_len=max_len).decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("text is not UTF-8") from None

    def finish(self) -> None:
        """End the reading. Raises RemoteProtocolError when bytes are left over."""
        left = len(self._view) - self._offset
        if left:
            raise RemoteProtocolError(f"{left} bytes follow the last field")
