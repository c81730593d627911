"""`zipnet publish` and `zipnet read` as processes, against a network of real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import SMALL, HarnessCommittee
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.cli import run
from zipnet.protocol.slots import max_message_bytes
from zipnet.sdk import Publisher, Reader
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from asyncio.subprocess import Process

_ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-never-to-be-shown"


async def _start(*words: object, stdin: bool = False) -> Process:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "zipnet",
        *map(str, words),
        cwd=_ROOT,
        env=environ,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _finish(process: Process, given: bytes | None = None) -> tuple[int, str, str]:
    async with asyncio.timeout(60):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def _run(*words: object, given: bytes | None = None) -> tuple[int, str, str]:
    return await _finish(await _start(*words, stdin=given is not None), given)


@pytest.fixture
def descriptor(tmp_path: Path) -> Path:
    """A descriptor whose nodes do not run."""
    path = tmp_path / "dead.toml"
    path.write_bytes(HarnessCommittee().descriptor_bytes)
    return path


class TestAgainstARunningNetwork:
    @pytest.mark.requirement("D2")
    async def test_what_goes_in_by_every_way_comes_out_verified(self, tmp_path: Path) -> None:
        lines = tmp_path / "lines.txt"
        long = "a line that is longer than one slot " * 9
        lines.write_text(f"first line\n\n{long}\nöffentlich\n", encoding="utf-8")
        async with FakeNetwork("tls") as network:
            path = tmp_path / "d.toml"
            path.write_bytes(network.committee.descriptor_bytes)
            common = ("-d", path, "--transport", "tls")
            trusted = network.committee.descriptor
            async with (
                Publisher(trusted, transport="tls") as one,
                Publisher(trusted, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                network.keep_running(3, wait_s=0.3)
                stdin, message, file = await asyncio.gather(
                    _run("publish", *common, given=b"hello\n"),
                    _run("publish", *common, "--message", "told", "--json"),
                    _run("publish", *common, "--messages", lines, "--json"),
                )
            assert [stdin[0], message[0], file[0]] == [0, 0, 0]
            assert stdin[1].startswith("published round=")
            receipts = [json.loads(line) for line in (message[1] + file[1]).splitlines()]
            code, out, _ = await _run("read", *common, "--from", 0, "--json")
            assert code == 0
            read = {item["message_id"]: item for item in map(json.loads, out.splitlines())}
            texts = {item["message"] for item in read.values()}
            assert texts == {"hello", "told", "first line", long, "öffentlich"}
            assert len(out.splitlines()) == 5
            assert all(item["verified"] is True for item in read.values())
            for receipt in receipts:
                item = read[receipt["message_id"]]
                assert (item["round"], item["sequence"]) == (receipt["round"], receipt["sequence"])
                assert (item["slot"], item["slots"]) == (receipt["slot"], receipt["slots"])
                assert receipt["participants"] >= 2
            one_line = await _run("read", *common, "--limit", 1)
            assert one_line[0] == 0
            assert one_line[1].startswith("round ")
            assert len(one_line[1].splitlines()) == 1
            shown = await _run("read", *common, "--records", "--json", "--from", 1, "--limit", 2)
            numbers = [json.loads(line)["sequence"] for line in shown[1].splitlines()]
            assert numbers == [1, 2]

    async def test_cover_stays_takes_lines_and_leaves_on_sigterm(self, tmp_path: Path) -> None:
        async with FakeNetwork("tls") as network:
            path = tmp_path / "d.toml"
            path.write_bytes(network.committee.descriptor_bytes)
            common = ("-d", path, "--transport", "tls")
            covers = [await _start("publish", *common, "--cover") for _ in range(2)]
            talker = await _start("publish", *common, "--cover", "--lines", "--json", stdin=True)
            stays = await _start("publish", *common, "-m", "a", "--json", "--linger", 10_000)
            await network.until(lambda: len(network.committee.changes) == 4)
            network.keep_running(4)
            assert stays.stdout is not None
            async with asyncio.timeout(30):
                assert json.loads(await stays.stdout.readline())["participants"] >= 3
            assert talker.stdin is not None
            assert talker.stdout is not None
            for text in (b"one", b"x" * (max_message_bytes(SMALL) + 1), b"two"):
                talker.stdin.write(text + b"\n")
            async with asyncio.timeout(30):
                receipts = [json.loads(await talker.stdout.readline()) for _ in range(2)]
            assert all(receipt["participants"] >= 2 for receipt in receipts)
            stays.send_signal(signal.SIGINT)
            assert (await _finish(stays))[0] == 0
            for process in (*covers, talker):
                process.send_signal(signal.SIGTERM)
            ends = [await _finish(process) for process in (*covers, talker)]
            assert [code for code, _, _ in ends] == [0, 0, 2]  # the line that was too long
            assert "line 2 is too long" in ends[2][2]

    async def test_what_a_killed_run_left_is_published_by_the_next(self, tmp_path: Path) -> None:
        secret = tmp_path / "me.secret"
        assert run(["keygen", "node", "--out", str(secret)]) == 0
        async with FakeNetwork("tls") as network:
            path = tmp_path / "d.toml"
            path.write_bytes(network.committee.descriptor_bytes)
            common = ("-d", path, "--transport", "tls")
            lasting = (*common, "--state", tmp_path / "state", "--secret-file", secret)
            killed = await _start("publish", *lasting, "-m", CANARY)
            interrupted = await _start("publish", *common, "-m", CANARY)
            await network.until(lambda: len(network.committee.changes) == 2)
            interrupted.send_signal(signal.SIGINT)
            code, out, err = await _finish(interrupted)
            assert (code, out, CANARY in err) == (1, "", False)
            assert "nothing of it left this process" in err
            killed.kill()
            await killed.wait()
            trusted = network.committee.descriptor
            async with (
                Publisher(trusted, transport="tls") as one,
                Publisher(trusted, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                again = await _start("publish", *lasting, "--lines", "--json")
                network.keep_running(2, wait_s=0.5)
                code, out, err = await _finish(again)
                assert code == 0, err
                (receipt,) = out.splitlines()
            async with Reader(trusted, transport="tls", from_sequence=0, follow=False) as reader:
                found = [message async for message in reader]
            assert [message.payload for message in found] == [CANARY.encode()]
            assert found[0].message_id.hex() == json.loads(receipt)["message_id"]

    async def test_following_shows_what_comes_later(self, tmp_path: Path) -> None:
        async with FakeNetwork("tls") as network:
            path = tmp_path / "d.toml"
            path.write_bytes(network.committee.descriptor_bytes)
            process = await _start(
                "read", "-d", path, "--transport", "tls", "--follow", "--json", "--limit", 1
            )
            await network.until(lambda: any(n.subscribers for n in network.nodes.values()))
            trusted = network.committee.descriptor
            async with (
                Publisher(trusted, transport="tls") as one,
                Publisher(trusted, transport="tls") as two,
            ):
                await one.when.registered()
                await two.when.registered()
                network.keep_running(2)
                await one.publish(b"\x1b[31mred\xff")
            code, out, _ = await _finish(process)
            assert code == 0
            assert json.loads(out)["message_hex"] == b"\x1b[31mred\xff".hex()


class TestOffline:
    async def test_a_record_folder_is_verified_without_a_network(self, tmp_path: Path) -> None:
        committee = HarnessCommittee()
        crowd = [HarnessPublisher(committee, f"client-{i}") for i in range(3)]
        for publisher in crowd:
            publisher.register()
        crowd[0].queue(b"kept \x1b[31m on disk")
        for _ in range(4):
            play_round(committee, crowd)
        path, folder = tmp_path / "d.toml", tmp_path / "records"
        path.write_bytes(committee.descriptor_bytes)
        folder.mkdir()
        log = RecordLog(folder, group=committee.descriptor.group)
        for sequence, record in enumerate(committee.records):
            log.append(sequence, record)
        log.close()
        code, out, err = await _run("read", "-d", path, "--records-dir", folder)
        assert code == 0
        assert "4 records verified" in err
        assert "\x1b" not in out
        assert out.rstrip().endswith(r"kept \x1b[31m on disk")
        code, out, _ = await _run("read", "-d", path, "--records-dir", folder, "--json")
        assert json.loads(out)["message"] == "kept \x1b[31m on disk"
        # A record of other keys in the chain is refused, and nothing of it is shown.
        other = tmp_path / "other"
        other.mkdir()
        log = RecordLog(other, group=committee.descriptor.group)
        log.append(0, committee.records[0])
        log.append(1, committee.records[2])
        log.close()
        code, out, err = await _run("read", "-d", path, "--records-dir", other)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")


def _refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run the command line in this process, for what ends before anything starts."""
    code = run([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


class TestRefusals:
    async def test_a_message_too_long_is_one_line_exit_2_and_nothing_is_sent(
        self, descriptor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = "x" * (max_message_bytes(SMALL) + 1)
        code, out, err = await _run("publish", "-d", descriptor, given=text.encode())
        assert (code, out) == (2, "")
        assert err.startswith("error: message is too long")
        assert len(err.splitlines()) == 1
        file = tmp_path / "long.txt"
        file.write_text(f"short\n\n{text}\n")
        code, out, err = _refused(capsys, "publish", "-d", descriptor, "--messages", file)
        assert (code, out) == (2, "")
        assert err.startswith("error: line 3 is too long")
        assert len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("publish", "--message", ""), "empty"),
            (("publish", "--message", "a", "--messages", "b"), "exclude each other"),
            (("publish", "--messages", "/does/not/exist"), "cannot read"),
            (("publish", "--message", "a", "--timeout", "soon"), "--timeout"),
            (("publish", "--message", "a", "--transport", "pigeon"), "TRANSPORT"),
            (("publish", "--message", "a", "--instance", "other.test"), "INSTANCE"),
            (("publish", "--message", "a", "--state", "somewhere"), "no SECRET"),
            (("read", "--records-dir", "/does/not/exist"), "not a folder"),
            (("read", "--records-dir", "/tmp", "--follow"), "exclude each other"),
            (("read", "--records-dir", "/usr"), "holds no records"),
            (("read", "--at", "2026-01-31"), "--at is for --records-dir"),
            (("read", "--records-dir", "/tmp", "--at", "soon"), "--at is no time"),
        ],
    )
    def test_what_cannot_be_used_is_one_line_and_exit_2(
        self,
        descriptor: Path,
        words: tuple[str, ...],
        said: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        code, out, err = _refused(capsys, words[0], "-d", descriptor, *words[1:])
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert said in err
        assert len(err.splitlines()) == 1

    def test_an_unreachable_network_is_not_sent_and_exit_1(
        self, descriptor: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ("-m", CANARY, "--timeout", "1s", "--transport", "tls")
        code, out, err = _refused(capsys, "publish", "-d", descriptor, *words)
        assert (code, out) == (1, "")
        (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "not registered" in error
        assert "no TLS connection to 127.0.0.1" in error
        assert CANARY not in err

    def test_reading_from_nobody_is_exit_1(
        self, descriptor: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, out, err = _refused(capsys, "read", "-d", descriptor, "--transport", "tls", "-q")
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
