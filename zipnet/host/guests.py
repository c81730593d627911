"""Guests: nodes that share a process and nothing else (row A1).

Rules:

1. Each guest has a thread, an event loop and that loop's worker threads for itself: a disk that
   hangs, a loop that is busy or an error that ends one guest leaves the others as they are.
2. A guest that fails is started again, later each time; one whose settings are wrong, or whose
   identity lives elsewhere, stays down. The host goes on while one guest does.
3. Each line a guest logs carries its own instance, role and name.
4. The service manager is told that the host is ready when every guest has been once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog.contextvars

from zipnet.errors import ConfigError, DuplicateIdentityError, ZipnetError
from zipnet.node.notify import ServiceNotifier
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Guest", "Host"]

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 60.0

_log = get_logger(__name__)

GuestMain = Callable[[asyncio.Event, ServiceNotifier], Awaitable[None]]
"""Runs a node until the event is set; says through the notifier when it is ready."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One node of a host.

    Attributes:
        name: What logs call it; unique within the host.
        instance: Name of its instance.
        role: Its role, for logs.
        run: The node.
    """

    name: str
    instance: str
    role: str
    run: GuestMain


class _ReadyNotifier(ServiceNotifier):
    """Tells the host what a node would tell the service manager."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        super().__init__({})
        self._on_ready = on_ready

    def ready(self, status: str = "") -> None:  # noqa: ARG002 - the base's signature
        self._on_ready()


class _Run:
    """One run of a guest: its thread, its loop, and how it ended."""

    def __init__(self, guest: Guest, on_ready: Callable[[], None]) -> None:
        self._guest = guest
        self._notifier = _ReadyNotifier(on_ready)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._host = asyncio.get_running_loop()
        self._done: asyncio.Future[BaseException | None] = self._host.create_future()
        self._thread = threading.Thread(target=self._main, name=f"guest-{guest.name}")

    async def outcome(self) -> BaseException | None:
        """Run the guest to its end; returns what ended it, None for an orderly end."""
        self._thread.start()
        try:
            return await asyncio.shield(self._done)
        finally:
            self.stop()
            # Also where the host is being cancelled: no thread outlives it.
            await asyncio.shield(self._done)
            self._thread.join()

    def stop(self) -> None:
        """Ask the guest to stop; also before it has begun."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._life())
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: the host judges it
            failure = error
        self._host.call_soon_threadsafe(self._done.set_result, failure)

    async def _life(self) -> None:
        guest = self._guest
        structlog.contextvars.bind_contextvars(
            zipnet_instance=guest.instance, role=guest.role, node=guest.name
        )
        stop = asyncio.Event()
        with self._lock:
            self._loop, self._stop = asyncio.get_running_loop(), stop
            if self._stopping:
                stop.set()
        try:
            await guest.run(stop, self._notifier)
        finally:
            with self._lock:
                self._loop = None


class Host:
    """Runs guests, each apart from the others.

    Args:
        guests: The nodes.
        notifier: The service manager's.
        retry_first_s: Pause before a failed guest is started again; doubled each time.
        as_one: Whether a guest that is down for good takes the others with it.
    """

    def __init__(
        self,
        guests: Sequence[Guest],
        *,
        notifier: ServiceNotifier,
        retry_first_s: float = RETRY_FIRST_S,
        as_one: bool = False,
    ) -> None:
        self._guests = tuple(guests)
        self._as_one = as_one
        self._notifier = notifier
        self._retry_first_s = retry_first_s
        self._ready: set[str] = set()
        self._all_ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run every guest until ``stop`` is set.

        Raises:
            ConfigError: When no guest is left, each having settings that are wrong; with
                ``as_one`` when one is not.
            ZipnetError: What ended the last guest.
        """
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(self._notifier.run_watchdog())
            tasks = [group.create_task(self._keep(guest, stop)) for guest in self._guests]
            await asyncio.wait(tasks)
            watchdog.cancel()
            self._notifier.stopping()
        failures = [error for task in tasks if (error := task.result()) is not None]
        if failures and (self._as_one or not stop.is_set()):
            raise failures[0]

    async def wait_ready(self) -> None:
        """Return once every guest has been ready."""
        await self._all_ready.wait()

    async def _keep(self, guest: Guest, stop: asyncio.Event) -> ZipnetError | None:
        """Run a guest, again after a failure; returns what keeps it down for good."""
        pause_s = self._retry_first_s
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            failure = await self._once(guest, stop)
            if failure is None:
                return None
            known = _leading(failure)
            final = isinstance(known, ConfigError | DuplicateIdentityError)
            _log.error(
                "guest_failed",
                node=guest.name,
                reason="internal_fault" if known is None else known.reason,
                error_type=type(failure).__name__,
                error=None if known is None else str(known),
                retry_after_s=None if final else pause_s,
            )
            if final:
                if self._as_one:
                    stop.set()
                return known
            if not isinstance(failure, Exception):
                raise failure
            if loop.time() - began > RETRY_MOST_S:
                pause_s = self._retry_first_s
            await _wait(stop, pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
        return None

    async def _once(self, guest: Guest, stop: asyncio.Event) -> BaseException | None:
        loop = asyncio.get_running_loop()
        run = _Run(guest, lambda: _call_in(loop, lambda: self._note_ready(guest)))

        async def pass_on() -> None:
            await stop.wait()
            run.stop()

        passing = asyncio.create_task(pass_on())
        try:
            return await run.outcome()
        finally:
            passing.cancel()

    def _note_ready(self, guest: Guest) -> None:
        if guest.name in self._ready:
            return
        self._ready.add(guest.name)
        if len(self._ready) == len(self._guests):
            self._all_ready.set()
            self._notifier.ready()


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def _leading(error: BaseException) -> ZipnetError | None:
    """Return the first of our errors, also out of a group."""
    if isinstance(error, ZipnetError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = (_leading(inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None
