"""The durable outbox: a killed process loses nothing, doubles nothing, shows nothing."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zipnet
from tests.harness.fake_network import FakeNetwork
from zipnet.errors import ConfigError, DuplicateIdentityError, LocalProtocolError
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import message_id_of
from zipnet.storage.journal import FileJournal
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from zipnet.sdk.driver import Draft

SECRET = bytes(range(32))
TEXT = b"canary: not to be lost, not to be doubled"
ROOT = Path(__file__).parents[3]

CHILD = """
import asyncio, sys
import zipnet
from zipnet.protocol.secret import Secret

async def main():
    descriptor = zipnet.load_descriptor(sys.argv[1])
    outbox = zipnet.Outbox(sys.argv[2], Secret(bytes(range(32))))
    async with zipnet.Publisher(descriptor, transport="tls", outbox=outbox) as publisher:
        task = asyncio.create_task(publisher.publish(sys.argv[3].encode(), timeout=3600))
        while not outbox.pending():
            await asyncio.sleep(0.01)
        print("stored", flush=True)
        await task
        print("published", flush=True)

asyncio.run(main())
"""


def _open(path: Path) -> zipnet.Outbox:
    return zipnet.Outbox(path, Secret(SECRET))


class TestTheFile:
    def test_what_was_put_and_not_struck_is_there_after_opening_again(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox"
        big = secrets.token_bytes(1024 * 1024)
        with _open(path) as outbox:
            first = outbox.put(b"first", b"1" * 8, None)
            outbox.put(big, b"2" * 8, 17)
            outbox.put(b"third", b"3" * 8, None)
            outbox.strike(first, 20)
        _open(path).close()  # opening rewrites the file
        with _open(path) as outbox:
            stored = outbox.pending()
            assert [one.message for one in stored] == [big, b"third"]
            assert [one.salt for one in stored] == [b"2" * 8, b"3" * 8]
            assert [one.since for one in stored] == [17, 17]
        with _open(path) as outbox:
            later = outbox.put(b"later", b"4" * 8, None)
            assert later not in [one.number for one in stored]
            assert outbox.pending()[-1].since == 20, "the place in the log is remembered"

    def test_nothing_readable_is_on_the_disk_and_nothing_struck_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox"
        with _open(path) as outbox:
            number = outbox.put(TEXT, b"salt-is-", None)
            data = path.read_bytes()
            assert TEXT not in data
            assert b"canary" not in data
            assert b"salt-is-" not in data
            assert path.stat().st_mode & 0o077 == 0
            full = len(data)
            outbox.strike(number, None)
        _open(path).close()
        assert path.stat().st_size < full
        assert sorted(p.name for p in tmp_path.iterdir()) == ["outbox"]

    def test_another_secret_and_a_second_process_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox"
        with _open(path), pytest.raises(DuplicateIdentityError):
            _open(path)
        with pytest.raises(ConfigError):
            zipnet.Outbox(path, Secret(bytes(32)))
        with _open(path) as outbox:
            assert outbox.pending() == ()

    def test_a_second_process_is_refused_while_the_file_is_rewritten_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, replace = tmp_path / "outbox", Path.replace
        refused: list[bool] = []

        def replace_late(old: Path, new: Path) -> Path:
            with pytest.raises(DuplicateIdentityError):
                FileJournal(new, identity=bytes(32))
            refused.append(True)
            return replace(old, new)

        _open(path).close()
        monkeypatch.setattr(Path, "replace", replace_late)
        with _open(path):
            assert refused == [True]


async def _start(network: FakeNetwork, folder: Path) -> Process:
    descriptor = folder / "d.toml"
    descriptor.write_bytes(network.committee.descriptor_bytes)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", CHILD),
        *(str(descriptor), str(folder / "outbox"), TEXT.decode()),
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"stored\n"
    return process


async def _kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def _shown(network: FakeNetwork) -> list[bytes]:
    async with zipnet.Reader(network.committee.descriptor, transport="tls", follow=False) as reader:
        return [message.payload async for message in reader]


async def _recover(network: FakeNetwork, folder: Path) -> list[object]:
    with _open(folder / "outbox") as outbox:
        async with zipnet.Publisher(
            network.committee.descriptor, transport="tls", outbox=outbox
        ) as publisher:
            outcomes: list[object] = list(await publisher.recover(timeout=60))
        assert outbox.pending() == ()
    return outcomes


async def test_a_process_killed_before_it_could_send_loses_nothing(tmp_path: Path) -> None:
    async with FakeNetwork("tls") as network:
        await _kill(await _start(network, tmp_path))
        async with zipnet.Publisher(network.committee.descriptor, transport="tls") as other:
            await other.when.registered()
            network.keep_running(2, wait_s=0.5)
            (outcome,) = await _recover(network, tmp_path)
        assert isinstance(outcome, zipnet.Receipt)
        assert await _shown(network) == [TEXT]


async def test_a_process_killed_after_its_message_was_broadcast_does_not_send_it_again(
    tmp_path: Path,
) -> None:
    async with FakeNetwork("tls") as network:
        committee = network.committee
        async with zipnet.Publisher(committee.descriptor, transport="tls") as other:
            await other.when.registered()
            process = await _start(network, tmp_path)
            await network.until(lambda: committee.active_clients == 2)
            while not (
                committee.verified and any(committee.verified[-1].record.content.reservations)
            ):
                await network.run_round(2)
            for node in network.nodes.values():  # the child never learns how it ended
                node.muted.add(Kind.RECORD_SEALED)
            while not committee.verified[-1].fragments:
                await network.run_round(2)
            await _kill(process)
            for node in network.nodes.values():
                node.muted.clear()
            network.keep_running(2, wait_s=0.5)
            (outcome,) = await _recover(network, tmp_path)
        assert isinstance(outcome, zipnet.Receipt)
        holding = [r for r in committee.verified if r.fragments]
        assert [r.sequence for r in holding] == [outcome.sequence], "broadcast once, not even twice"
        assert outcome.message_id != message_id_of(TEXT), "the salt is the child's"
        assert await _shown(network) == [TEXT]


async def test_outcomes_that_were_told_are_struck_out(tmp_path: Path) -> None:
    async with FakeNetwork("tls") as network:
        descriptor = network.committee.descriptor
        with _open(tmp_path / "outbox") as outbox:
            async with (
                zipnet.Publisher(descriptor, transport="tls", outbox=outbox) as one,
                zipnet.Publisher(descriptor, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                with pytest.raises(zipnet.NotSent):
                    await one.publish(b"no rounds yet", timeout=0.1)
                assert outbox.pending() == ()
                network.keep_running(2)
                await one.publish(b"told")
                assert outbox.pending() == ()
                assert await one.recover() == []
                with pytest.raises(LocalProtocolError):
                    await two.recover()


class _SlowOutbox(zipnet.Outbox):
    """One whose disk takes its time; notes how many are at it at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Secret(SECRET))
        self.may_go, self.entered = threading.Event(), threading.Event()
        self.busy = self.most = 0

    def put(self, message: bytes, salt: bytes, since: int | None) -> int:
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.entered.set()
        assert self.may_go.wait(30)
        try:
            return super().put(message, salt, since)
        finally:
            self.busy -= 1


async def test_a_call_cancelled_while_its_message_is_stored_takes_it_back(tmp_path: Path) -> None:
    outbox = _SlowOutbox(tmp_path / "outbox")
    async with FakeNetwork("tls") as network:
        descriptor = network.committee.descriptor
        async with zipnet.Publisher(descriptor, transport="tls", outbox=outbox) as publisher:
            first = asyncio.create_task(publisher.publish(b"never mind", timeout=60))
            await asyncio.to_thread(outbox.entered.wait, 30)
            outbox.entered.clear()
            first.cancel()
            second = asyncio.create_task(publisher.publish(b"but this", timeout=60))
            for _ in range(5):
                await asyncio.sleep(0.01)
            first.cancel()  # an impatient caller
            outbox.may_go.set()
            with pytest.raises(asyncio.CancelledError):
                await first
            async with asyncio.timeout(30):
                while b"but this" not in [one.message for one in outbox.pending()]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert [one.message for one in outbox.pending()] == [b"but this"]
            assert outbox.most == 1
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
    outbox.close()
    with _open(tmp_path / "outbox") as again:
        assert again.pending() == ()


async def test_where_readers_need_a_capability_the_log_is_searched_with_the_publishers_own(
    tmp_path: Path,
) -> None:
    with _open(tmp_path / "outbox") as outbox:
        outbox.put(TEXT, b"salt-is-", None)  # and the process was killed
    async with FakeNetwork("tls") as network:
        descriptor = network.committee.descriptor
        network.gated = {Kind.GET_RECORDS}
        with _open(tmp_path / "outbox") as outbox:
            async with (
                zipnet.Publisher(descriptor, transport="tls") as one,
                zipnet.Publisher(descriptor, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                assert await network.run_round(2)  # something there is to search
                async with zipnet.Publisher(
                    descriptor, transport="tls", outbox=outbox, capability=b"t"
                ) as publisher:
                    await publisher.when.registered()
                    network.keep_running(3, wait_s=0.5)
                    async with asyncio.timeout(20):
                        (outcome,) = await publisher.recover()
        assert isinstance(outcome, zipnet.Receipt)


async def test_an_outcome_nobody_was_told_is_not_struck_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeNetwork("tls") as network:
        descriptor = network.committee.descriptor
        with _open(tmp_path / "outbox") as outbox:
            for text in (b"given up", b"under way"):
                outbox.put(text, b"salt-is-", None)
            async with (
                zipnet.Publisher(descriptor, transport="tls", outbox=outbox) as one,
                zipnet.Publisher(descriptor, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                network.keep_running(2)
                send, ended = one._send, asyncio.Event()

                async def first_fails(draft: Draft, timeout_s: float, told: None) -> object:
                    if draft.message == b"under way":
                        await asyncio.Event().wait()
                    with pytest.raises(zipnet.NotSent) as outcome:
                        await send(draft, 0.0, told)
                    asyncio.get_running_loop().call_later(0.2, ended.set)
                    raise outcome.value

                monkeypatch.setattr(one, "_send", first_fails)
                recovering = asyncio.create_task(one.recover())
                async with asyncio.timeout(30):
                    await ended.wait()
                recovering.cancel()  # or the process is killed
                with pytest.raises(asyncio.CancelledError):
                    await recovering
            assert [one.message for one in outbox.pending()] == [b"given up", b"under way"]
