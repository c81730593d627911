"""The SDK for programs without an event loop: the same objects, driven from a thread of their own.

Example::

    with zipnet.sync.Publisher(descriptor) as publisher:
        receipt = publisher.publish(b"hello")

    with zipnet.sync.Reader(descriptor, follow=False) as reader:
        for message in reader:
            print(message.payload)

Nothing is implemented here a second time: every call runs on the asynchronous object of the same
name. Rules:

1. Arguments are those of the asynchronous classes.
2. Calls may come from several threads at once; callbacks run in the portal's thread.
3. Leaving the block stops the thread; nothing runs on afterwards.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zipnet.errors import LocalProtocolError
from zipnet.sdk import publisher as asynchronous
from zipnet.sdk import reader as reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType

    from zipnet.machines.outgoing import Receipt
    from zipnet.machines.reader import Message
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.sdk.sending import Progress

__all__ = ["Publisher", "Reader"]

_T = TypeVar("_T")


class _Portal:
    """An event loop in a thread, and the way into it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zipnet-portal", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._up.wait()

    def _run(self) -> None:
        async def stay() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self._up.set()
            await self._stop.wait()

        asyncio.run(stay())

    def call(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine there and return what it returned; Ctrl-C here cancels it there."""
        if self._loop is None or not self._thread.is_alive():
            raise LocalProtocolError("this object is not open", hint="use it inside `with`")
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


class Publisher:
    """:class:`zipnet.Publisher` without ``await``.

    Args:
        descriptor: The instance, verified.
        **options: As for :class:`zipnet.Publisher`.
    """

    def __init__(self, descriptor: TrustedDescriptor, **options: Any) -> None:  # noqa: ANN401 - the other class checks them
        self._portal = _Portal()
        self._descriptor, self._options = descriptor, options
        self._publisher: asynchronous.Publisher | None = None

    def __enter__(self) -> Self:
        """Start taking part in rounds."""
        self._portal.start()
        try:
            self._portal.call(self._open)
        except BaseException:
            self._portal.stop()
            raise
        return self

    async def _open(self) -> None:
        self._publisher = await asynchronous.Publisher(
            self._descriptor, **self._options
        ).__aenter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave as the asynchronous publisher does, and stop the thread."""
        inner = self._opened()
        try:
            self._portal.call(lambda: inner.__aexit__(kind, error, trace))
        finally:
            self._portal.stop()

    def publish(
        self,
        data: bytes,
        *,
        timeout: float = 60.0,
        salt: bytes | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Receipt:
        """Broadcast a message and wait for its receipt; see :meth:`zipnet.Publisher.publish`.

        Raises:
            PublishError: What is known when there is no receipt.
        """
        inner = self._opened()
        return self._portal.call(
            lambda: inner.publish(data, timeout=timeout, salt=salt, on_progress=on_progress)
        )

    def wait_registered(self) -> None:
        """Return as soon as the committee has this client in its registry."""
        inner = self._opened()
        self._portal.call(inner.when.registered)

    def _opened(self) -> asynchronous.Publisher:
        if self._publisher is None:
            raise LocalProtocolError("the publisher is not running: use it inside `with`")
        return self._publisher


class Reader:
    """:class:`zipnet.Reader` without ``await``.

    Args:
        descriptor: The instance, verified.
        **options: As for :class:`zipnet.Reader`.
    """

    def __init__(self, descriptor: TrustedDescriptor, **options: Any) -> None:  # noqa: ANN401 - the other class checks them
        self._portal = _Portal()
        self._descriptor, self._options = descriptor, options
        self._reader: reading.Reader | None = None

    def __enter__(self) -> Self:
        """Return the reader; links are made when the first item is asked for."""
        self._portal.start()
        try:
            self._portal.call(self._open)
        except BaseException:
            self._portal.stop()
            raise
        return self

    async def _open(self) -> None:
        self._reader = reading.Reader(self._descriptor, **self._options)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the link in use and stop the thread."""
        inner = self._opened()
        try:
            self._portal.call(inner.close)
        finally:
            self._portal.stop()

    def __iter__(self) -> Iterator[Message]:
        """Yield every message that was broadcast in full, in order."""
        return self._iterate(aiter(self._opened()))

    def records(self) -> Iterator[VerifiedRecord]:
        """Yield every verified record in sequence order."""
        return self._iterate(self._opened().records())

    def _iterate(self, items: AsyncIterator[_T]) -> Iterator[_T]:
        async def following() -> _T | None:
            return await anext(items, None)

        while (item := self._portal.call(following)) is not None:
            yield item

    def _opened(self) -> reading.Reader:
        if self._reader is None:
            raise LocalProtocolError("the reader is not open: use it inside `with`")
        return self._reader
