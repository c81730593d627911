"""Typed channels: an application's own values, all of one width, picked out of the broadcast.

Example::

    votes = Channel.json("acme.votes", Vote, width=96)
    await votes.publish(publisher, Vote(ballot="Q7", choice="yes"))
    async for received in votes.read(reader):
        print(received.value, received.message.round)

Rules:

1. Every message of a channel is padded to the channel's width, so that it takes the same number of
   slots whatever it says (protocol.md §5.1 makes slots alike; this makes messages alike).
2. A channel's mark is public and proves nothing: anybody may write into any channel. What has to
   prove where it comes from carries its own signature, under a key that is not the author's name.
3. What bears the mark and does not decode is told to ``on_malformed`` and passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.ids import derive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.machines.outgoing import Receipt
    from zipnet.machines.reader import Message
    from zipnet.sdk.publisher import Publisher
    from zipnet.sdk.reader import Reader

__all__ = ["Channel", "Received"]

T = TypeVar("T")

_MARK_BYTES = 8
_LENGTH_BYTES = 4
_MAX_WIDTH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """A value that came out of the broadcast.

    Attributes:
        value: The decoded value.
        message: The verified message it came in.
    """

    value: T
    message: Message


class Channel(Generic[T]):
    """One kind of value of one application.

    Args:
        name: Name of the channel, such as ``acme.votes``; who uses the same name shares it.
        encode: Turns a value into bytes.
        decode: Turns bytes into a value; raises ValueError for bytes that are none.
        width: Bytes of every message, the 12 of mark and length included.
        on_malformed: Told about messages with the channel's mark that do not decode.

    Raises:
        ConfigError: When the name is empty or the width out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        width: int,
        on_malformed: Callable[[Message], None] | None = None,
    ) -> None:
        if not name:
            raise ConfigError("a channel needs a name", hint="such as acme.votes")
        if not _MARK_BYTES + _LENGTH_BYTES < width <= _MAX_WIDTH:
            raise ConfigError(f"a channel's width is 13 to {_MAX_WIDTH} bytes, not {width}")
        self.name = name
        self.width = width
        self._encode = encode
        self._decode = decode
        self._on_malformed = on_malformed or (lambda _message: None)
        self._mark = derive("channel", name.encode())[:_MARK_BYTES]

    @classmethod
    def text(cls, name: str, *, width: int) -> Channel[str]:
        """Return a channel of notes in UTF-8."""
        return Channel[str](name, encode=str.encode, decode=bytes.decode, width=width)

    @classmethod
    def json(cls, name: str, kind: type[T], *, width: int) -> Channel[T]:
        """Return a channel of values that msgspec turns into JSON, such as its Structs."""
        decoder = msgspec.json.Decoder(kind)

        def decode(data: bytes) -> T:
            try:
                return decoder.decode(data)
            except msgspec.DecodeError as error:
                raise ValueError("not such a value") from error

        return Channel[T](name, encode=msgspec.json.encode, decode=decode, width=width)

    def pack(self, value: T) -> bytes:
        """Return the message that says a value; always ``width`` bytes.

        Raises:
            LocalProtocolError: When the value takes more than the channel's width.
        """
        data = self._encode(value)
        room = self.width - _MARK_BYTES - _LENGTH_BYTES
        if len(data) > room:
            raise LocalProtocolError(
                f"the value takes {len(data)} bytes, channel {self.name} has room for {room}",
                hint="shorten it, or make the channel wider for everybody",
            )
        length = len(data).to_bytes(_LENGTH_BYTES, "big")
        return self._mark + length + data + bytes(room - len(data))

    def unpack(self, message: Message) -> Received[T] | None:
        """Return the value of a message, or None when it is not one of this channel's."""
        payload = message.payload
        if payload[:_MARK_BYTES] != self._mark:
            return None
        start = _MARK_BYTES + _LENGTH_BYTES
        length = int.from_bytes(payload[_MARK_BYTES:start], "big")
        sound = len(payload) == self.width and length <= self.width - start
        try:
            if sound and not any(payload[start + length :]):
                return Received(self._decode(payload[start : start + length]), message)
        except ValueError:
            pass  # UnicodeDecodeError is one too
        self._on_malformed(message)
        return None

    async def publish(self, publisher: Publisher, value: T, **options: Any) -> Receipt:  # noqa: ANN401 - publish checks them
        """Publish a value; ``options`` are those of :meth:`zipnet.Publisher.publish`.

        Raises:
            PublishError: What is known when there is no receipt.
        """
        return await publisher.publish(self.pack(value), **options)

    async def read(self, reader: Reader) -> AsyncIterator[Received[T]]:
        """Yield the channel's values in the order they were broadcast."""
        async for message in reader:
            received = self.unpack(message)
            if received is not None:
                yield received
