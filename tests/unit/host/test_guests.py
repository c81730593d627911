"""Guests of a host: what happens to one does not happen to another."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import TYPE_CHECKING

import pytest

from zipnet.errors import ConfigError, TransportError
from zipnet.host.guests import Guest, Host
from zipnet.node.notify import ServiceNotifier
from zipnet.observe.log import configure_logging, get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.timeout(60)


class Notes(ServiceNotifier):
    """A service manager that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[str] = []

    def ready(self, status: str = "") -> None:
        self.told.append("ready")

    def stopping(self) -> None:
        self.told.append("stopping")


def guest(name: str, run: Callable[[asyncio.Event, ServiceNotifier], Awaitable[None]]) -> Guest:
    return Guest(name, f"{name}.test", "server", run)


async def steady(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
    notifier.ready()
    await stop.wait()


def host_of(*guests: Guest, notes: Notes | None = None) -> Host:
    return Host(guests, notifier=notes or Notes(), retry_first_s=0.01)


async def test_ready_is_said_once_when_every_guest_was() -> None:
    notes, gate = Notes(), threading.Event()

    async def late(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        await asyncio.to_thread(gate.wait)
        await steady(stop, notifier)

    host, stop = host_of(guest("a", steady), guest("b", late), notes=notes), asyncio.Event()
    running = asyncio.create_task(host.run(stop))
    assert notes.told == []
    gate.set()
    await host.wait_ready()
    stop.set()
    await running
    assert notes.told == ["ready", "stopping"]


async def test_guests_that_are_one_end_together_when_one_cannot_run() -> None:
    async def wrong(_stop: asyncio.Event, _notifier: ServiceNotifier) -> None:
        raise ConfigError("its port is taken")

    stop = asyncio.Event()
    host = Host([guest("a", steady), guest("b", wrong)], notifier=Notes(), as_one=True)
    with pytest.raises(ConfigError, match="port is taken"):
        await host.run(stop)
    assert stop.is_set()


async def test_a_guest_that_fails_is_started_again_and_the_other_stays_as_it_is() -> None:
    runs: list[str] = []
    again = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def failing(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        runs.append("failing")
        if len(runs) < 4:
            raise TransportError("the link is gone")
        loop.call_soon_threadsafe(again.set)
        await steady(stop, notifier)

    async def other(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        assert runs.count("other") == 0
        runs.append("other")
        await steady(stop, notifier)

    stop = asyncio.Event()
    running = asyncio.create_task(host_of(guest("a", failing), guest("b", other)).run(stop))
    await again.wait()
    stop.set()
    await running
    assert runs.count("other") == 1


async def test_a_guest_with_wrong_settings_stays_down_and_the_other_goes_on() -> None:
    runs: list[int] = []

    async def wrong(_stop: asyncio.Event, _notifier: ServiceNotifier) -> None:
        runs.append(1)
        raise ConfigError("port taken", hint="take another")

    stop, up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def other(stop: asyncio.Event, _notifier: ServiceNotifier) -> None:
        loop.call_soon_threadsafe(up.set)
        await stop.wait()

    running = asyncio.create_task(host_of(guest("a", wrong), guest("b", other)).run(stop))
    await up.wait()
    await asyncio.sleep(0)
    assert not running.done()
    stop.set()
    await running
    assert runs == [1]


async def test_a_host_whose_guests_are_all_down_ends_with_the_first_reason() -> None:
    async def wrong(_stop: asyncio.Event, _notifier: ServiceNotifier) -> None:
        raise ConfigError("port taken", hint="take another")

    with pytest.raises(ConfigError, match="port taken"):
        await host_of(guest("a", wrong), guest("b", wrong)).run(asyncio.Event())


@pytest.mark.requirement("A1")
async def test_a_guest_whose_loop_hangs_does_not_hold_up_another() -> None:
    hang, done = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hanging(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        notifier.ready()
        hang.wait()  # on purpose: the loop itself, as a disk that hangs in the wrong place
        await stop.wait()

    async def other(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        notifier.ready()
        # Its own worker threads too: more jobs than any shared pool would have left.
        await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(64)))
        loop.call_soon_threadsafe(done.set)
        await stop.wait()

    stop = asyncio.Event()
    running = asyncio.create_task(host_of(guest("a", hanging), guest("b", other)).run(stop))
    await done.wait()
    hang.set()
    stop.set()
    await running


async def test_a_cancelled_host_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    host = host_of(guest("a", steady), guest("b", steady))
    running = asyncio.create_task(host.run(asyncio.Event()))
    await host.wait_ready()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [t for t in threading.enumerate() if t.name.startswith("guest-")]
    assert threading.active_count() <= before + 1  # asyncio's own workers may stay


async def test_each_line_says_whose_it_is() -> None:
    out = io.StringIO()
    configure_logging(service="zipnet-host", instance="host", role="host", stream=out, json=True)

    async def speaking(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        get_logger().info("node_ready")
        await asyncio.to_thread(get_logger().info, "node_stopped")
        await steady(stop, notifier)

    host, stop = host_of(guest("a", speaking), guest("b", speaking)), asyncio.Event()
    running = asyncio.create_task(host.run(stop))
    await host.wait_ready()
    stop.set()
    await running
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    seen = {(line["event"], line["zipnet_instance"], line["node"]) for line in lines}
    assert seen == {
        (event, f"{name}.test", name)
        for event in ("node_ready", "node_stopped")
        for name in ("a", "b")
    }
