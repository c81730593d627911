"""Promises of the service notifier, against a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from zipnet.node.notify import ServiceNotifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(5)
        yield listening, path


def test_states_arrive_as_systemd_reads_them(supervisor: tuple[socket.socket, str]) -> None:
    listening, path = supervisor
    notifier = ServiceNotifier({"NOTIFY_SOCKET": path})
    notifier.ready("serving\nacme.test")
    assert listening.recv(1024) == b"READY=1\nSTATUS=serving acme.test"
    notifier.status("in safe mode")
    assert listening.recv(1024) == b"STATUS=in safe mode"
    notifier.stopping()
    assert listening.recv(1024) == b"STOPPING=1"


def test_abstract_socket_names_work() -> None:
    name = f"zipnet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(5)
        ServiceNotifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listening.recv(1024) == b"READY=1"


def test_outside_systemd_and_with_a_dead_supervisor_nothing_happens(tmp_path: Path) -> None:
    ServiceNotifier({}).ready()
    ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


async def test_the_watchdog_is_fed_from_the_event_loop(
    supervisor: tuple[socket.socket, str],
) -> None:
    listening, path = supervisor
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    notifier = ServiceNotifier(environ)
    assert notifier.watchdog_interval_s == 0.01
    feeding = asyncio.create_task(notifier.run_watchdog())
    for _ in range(2):
        assert await asyncio.to_thread(listening.recv, 1024) == b"WATCHDOG=1"
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding


async def test_a_watchdog_meant_for_another_process_is_not_fed() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    notifier = ServiceNotifier(environ)
    assert notifier.watchdog_interval_s is None
    async with asyncio.timeout(5):
        await notifier.run_watchdog()
