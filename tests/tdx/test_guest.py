"""Getting quotes: configfs-tsm, the guest device with a QGS, and this TD's registers."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha384
from pathlib import Path

import pytest

from tdx.emulator import QuoteService
from tdx.errors import Check, GuestError, PolicyError, QuoteError
from tdx.guest import (
    ConfigfsSource,
    OsTree,
    QgsSource,
    connect_unix,
    connect_vsock,
    device_report,
    emulated_report,
    extend_rtmr3,
    read_register,
)
from tdx.guest.qgs import TDX_CMD_GET_REPORT0
from tdx.quote import parse_quote, parse_tdreport
from tdx.quote.qgs import (
    QgsMessage,
    decode_message,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tests.tdx import vectors
from tests.tdx.fake_tree import REGISTERS, REPORTS, FakeTree
from tests.tdx.forged import REPORT_DATA, emulator, judge
from tests.tdx.test_cli import run

A = b"a" * 48
RTMR = (A, b"b" * 48, b"c" * 48, b"d" * 48)


def emulated(report_data: bytes) -> bytes:
    return emulator().quote(report_data)


def source(tree: FakeTree) -> tuple[ConfigfsSource, list[float]]:
    pauses: list[float] = []
    return ConfigfsSource(REPORTS, tree=tree, attempts=4, sleep=pauses.append), pauses


def test_a_quote_comes_through_configfs_and_the_directory_goes() -> None:
    tree = FakeTree(emulated)
    asked, pauses = source(tree)
    assert judge(asked.quote(REPORT_DATA), report_data=REPORT_DATA).report_data_checked
    assert asked.quote(b"x" * 64)
    assert tree.reports == {}
    assert pauses == []
    assert len(set(tree.made)) == 2
    assert all(f"-{os.getpid()}-" in path.name for path in tree.made)


RECOVERED: dict[str, dict[str, object]] = {
    "another quote in flight at the write": {"faults": {"write inblob": [errno.EBUSY] * 3}},
    "another quote in flight at the read": {"faults": {"read outblob": [errno.EBUSY]}},
    "interrupted": {"faults": {"read outblob": [errno.EINTR, errno.EINTR]}},
    "timed out once": {"faults": {"read outblob": [errno.ETIMEDOUT]}},
    "would block": {"faults": {"read outblob": [errno.EWOULDBLOCK]}},
    "somebody else wrote": {"intruders": 2},
    "the count lags": {"lag": 3},
    "the directory stays": {"faults": {"remove": [errno.EBUSY]}},
}


@pytest.mark.parametrize("title", RECOVERED)
def test_what_passes_is_waited_for(title: str) -> None:
    tree = FakeTree(emulated, **RECOVERED[title])  # type: ignore[arg-type] # fields of the fake
    asked, _ = source(tree)
    assert parse_quote(asked.quote(REPORT_DATA)).report.report_data == REPORT_DATA


FINAL: dict[str, tuple[dict[str, object], str, bool]] = {
    "no provider": ({"provider": None}, "No such device", False),
    "foreign provider": ({"provider": "sev_guest"}, "sev_guest", False),
    "no configfs": ({"faults": {"make": [errno.ENOENT]}}, "No such file", False),
    "not allowed": ({"faults": {"make": [errno.EACCES]}}, "denied", False),
    "busy for ever": ({"faults": {"write inblob": [errno.EBUSY] * 9}}, "busy", True),
    "service down": ({"faults": {"read outblob": [errno.ETIMEDOUT] * 9}}, "timed out", True),
    "input/output error": ({"faults": {"read outblob": [errno.EIO]}}, "Input/output", True),
    "quote too large": ({"faults": {"read outblob": [errno.EFBIG]}}, "too large", False),
    "rewritten for ever": ({"intruders": 99}, "rewritten", True),
    "the count never moves": ({"count": "7"}, "rewritten", True),
    "counts in words": ({"count": "many"}, "digits", False),
    "no quote": ({}, "no quote", False),
    "another's quote": ({}, "other report data", True),
}


@pytest.mark.parametrize("title", FINAL)
def test_what_does_not_pass_is_said_and_the_directory_goes(title: str) -> None:
    fields, expected, may_retry = FINAL[title]
    answers: dict[str, Callable[[bytes], bytes]] = {
        "no quote": lambda _: b"junk",
        "another's quote": lambda _: emulated(bytes(64)),
    }
    tree = FakeTree(answers.get(title, emulated), **fields)  # type: ignore[arg-type] # as above
    asked, pauses = source(tree)
    with pytest.raises(GuestError, match=expected) as caught:
        asked.quote(REPORT_DATA)
    assert caught.value.may_retry == may_retry
    assert tree.reports == {}
    assert all(pause <= 1 for pause in pauses)


def test_report_data_has_64_bytes() -> None:
    for asked in (source(FakeTree(emulated))[0], QgsSource(lambda _: b"", socket.socket)):
        with pytest.raises(PolicyError):
            asked.quote(b"short")


def test_the_real_tree_reads_whole_files_and_writes_once(tmp_path: Path) -> None:
    tree = OsTree()
    tree.make(tmp_path / "report")
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o700
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(range(256)) * 50)
    assert tree.read(blob) == bytes(range(256)) * 50
    tree.write(blob, b"new")
    assert blob.read_bytes()[:4] == b"new\x03"
    blob.write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="too large"):
        tree.read(blob)
    tree.remove(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    with pytest.raises(GuestError, match="No such file"):
        ConfigfsSource(tmp_path / "absent", sleep=lambda _: None).quote(REPORT_DATA)


@contextmanager
def served(path: Path, *, version: int = 4) -> Iterator[QuoteService]:
    service = QuoteService(emulator(), path, version=version)
    thread = threading.Thread(target=service.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("version", [4, 5])
def test_a_service_on_a_unix_socket_quotes_what_the_report_says(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "qgs"
    with served(path, version=version):
        assert path.stat().st_mode & 0o777 == 0o600
        asked = QgsSource(emulated_report(A, RTMR), connect_unix(path))
        verdict = judge(asked.quote(REPORT_DATA), report_data=REPORT_DATA)
        assert (verdict.report.mrtd, verdict.report.rtmr) == (A, RTMR)
    assert not path.exists()
    with pytest.raises(GuestError, match="does not answer") as caught:
        asked.quote(REPORT_DATA)
    assert caught.value.may_retry


def test_a_request_the_service_does_not_understand_is_refused_and_it_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "qgs"
    with served(path):
        broken = QgsSource(lambda _: b"no report", connect_unix(path))
        with pytest.raises(GuestError, match="refuses with 0x12001"):
            broken.quote(REPORT_DATA)
        for junk in (b"", b"\xff\xff\xff\xff", b"\0\0\0\x05abc"):
            with connect_unix(path)() as connection:
                connection.sendall(junk)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(100) == b""
        assert QgsSource(emulated_report(A, RTMR), connect_unix(path)).quote(REPORT_DATA)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Answer one connection with fixed bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        yield
        thread.join(10)


ANSWERS = {
    "nothing": (b"", "ends inside"),
    "cut": (b"\0\0\0\x20abc", "ends inside"),
    "too long": (b"\xff\xff\xff\xff", "at most"),
    "no header": (b"\0\0\0\x01a", "not understood"),
    "another version": (struct.pack(">I", 16) + struct.pack("<HHIII", 2, 0, 1, 16, 0), "underst"),
    "another size": (struct.pack(">I", 16) + struct.pack("<HHIII", 1, 0, 1, 17, 0), "underst"),
    "an error": (encode_response(b"", error=7), "refuses with 0x7"),
    "a request": (encode_request(bytes(1024)), "not understood"),
    "no quote": (encode_response(b""), "no quote"),
    "a huge quote": (encode_response(bytes(17_000)), "not understood"),
    "sizes that lie": (
        struct.pack(">I", 24) + struct.pack("<HHIIIII", 1, 0, 1, 24, 0, 0, 9),
        "not understood",
    ),
}


@pytest.mark.parametrize("title", ANSWERS)
def test_a_service_that_answers_wrongly_is_not_believed(tmp_path: Path, title: str) -> None:
    answer, expected = ANSWERS[title]
    path = tmp_path / "qgs"
    asked = QgsSource(emulated_report(A, RTMR), connect_unix(path, timeout_s=5))
    with answering(path, answer), pytest.raises(GuestError, match=expected):
        asked.quote(REPORT_DATA)


def test_messages_survive_their_encoding_and_refuse_others() -> None:
    report = bytes([0x81]) + bytes(1023)
    assert decode_request(decode_message(encode_request(report)[4:])) == report
    quote = b"quote"
    assert decode_response(decode_message(encode_response(quote)[4:])) == quote
    for message in (QgsMessage(1, 0, bytes(8)), QgsMessage(0, 0, b""), QgsMessage(0, 0, bytes(8))):
        with pytest.raises(QuoteError) as caught:
            decode_request(message)
        assert caught.value.check is Check.STRUCTURE


def test_vsock_is_tried_and_its_absence_said() -> None:
    asked = QgsSource(emulated_report(A, RTMR), connect_vsock(timeout_s=0.2))
    with pytest.raises(GuestError, match="does not answer"):
        asked.quote(REPORT_DATA)


def test_the_guest_device_is_asked_with_its_ioctl(tmp_path: Path) -> None:
    device = tmp_path / "tdx_guest"
    device.touch()
    calls: list[tuple[int, int]] = []

    def ioctl(_: int, request: int, buffer: bytearray) -> None:
        calls.append((request, len(buffer)))
        buffer[64:] = emulated_report(A, RTMR)(bytes(buffer[:64]))

    report = device_report(device, ioctl=ioctl)(REPORT_DATA)
    assert parse_tdreport(report).report_data == REPORT_DATA
    assert calls == [(TDX_CMD_GET_REPORT0, 64 + 1024)]

    def silent(_: int, request: int, buffer: bytearray) -> None:
        buffer[64] = 0x81

    def failing(_: int, request: int, buffer: bytearray) -> None:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    with pytest.raises(GuestError, match="other report data"):
        device_report(device, ioctl=silent)(REPORT_DATA)
    with pytest.raises(GuestError, match="no TDREPORT"):
        device_report(device, ioctl=lambda *_: 0)(REPORT_DATA)
    with pytest.raises(GuestError, match="ioctl"):
        device_report(device, ioctl=failing)(REPORT_DATA)
    with pytest.raises(GuestError, match="ioctl"):
        device_report(device)(REPORT_DATA)
    with pytest.raises(GuestError, match="No such file"):
        device_report(tmp_path / "absent")(REPORT_DATA)


def test_rtmr3_is_extended_and_read_back() -> None:
    tree = FakeTree(emulated)
    digest = sha384(b"event").digest()
    value = extend_rtmr3(digest, REGISTERS, tree=tree)
    assert value == sha384(bytes(48) + digest).digest()
    assert read_register("rtmr3", REGISTERS, tree=tree) == value
    assert read_register("rtmr0", REGISTERS, tree=tree) == bytes(48)


def test_registers_that_cannot_be_read_or_extended_are_said(tmp_path: Path) -> None:
    tree = FakeTree(emulated)
    with pytest.raises(PolicyError):
        extend_rtmr3(b"short", REGISTERS, tree=tree)
    with pytest.raises(PolicyError):
        read_register("rtmr9", REGISTERS, tree=tree)
    with pytest.raises(GuestError, match="not available"):
        read_register("mrtd", REGISTERS, tree=tree)
    tree.faults["write rtmr3:sha384"] = [errno.EACCES]
    with pytest.raises(GuestError, match="denied"):
        extend_rtmr3(bytes(48), REGISTERS, tree=tree)
    plain = tmp_path / "rtmr3:sha384"
    plain.write_bytes(bytes(48))
    with pytest.raises(GuestError, match="another value"):
        extend_rtmr3(b"x" * 48, tmp_path)  # a plain file is overwritten, not extended
    plain.write_bytes(b"short")
    with pytest.raises(GuestError, match="48 bytes"):
        read_register("rtmr3", tmp_path)


def test_the_command_writes_an_emulated_quote_that_only_emulate_verifies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = run("emulate", "quote", "--out", out, "--report-data", "ab" * 64, "--quote-version", "5")
    assert made.returncode == 0
    assert b"NOT INTEL" in made.stderr
    quote, collateral = out / "quote.bin", out / "collateral.json"
    common = (quote, "--collateral", collateral, "--json", "--report-data", "ab" * 64)
    refused = run("verify", *common)
    assert (refused.returncode, json.loads(refused.stdout)["check"]) == (1, "root_pin")
    root = out / "root.der"
    accepted = run("emulate", "verify", *common, "--root", root)
    assert (accepted.returncode, json.loads(accepted.stdout)["status"]) == (0, "UpToDate")
    people = run("emulate", "verify", quote, "--collateral", collateral, "--root", root)
    assert b"EMULATED, NOT INTEL" in people.stdout
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    strict = run("emulate", "verify", *common, "--root", root, "--policy", policy)
    assert json.loads(strict.stdout)["check"] == "emulated_marker"
    intel = vectors.other("trust/intel_sgx_root_ca.der")
    root.write_bytes(intel)
    assert run("emulate", "verify", *common, "--root", root).returncode == 2
    assert run("emulate", "quote", "--out", out, "--report-data", "ab").returncode == 2


def test_the_served_emulator_answers_until_it_is_told_to_stop(tmp_path: Path) -> None:
    path, out = tmp_path / "qgs", tmp_path / "out"
    command = "from tdx.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "emulate", "serve", "--socket", path, "--out", out],
        stderr=subprocess.PIPE,
        cwd=vectors.ROOT,
    ) as process:
        try:
            assert process.stderr is not None
            assert b"NOT INTEL" in process.stderr.readline()
            second = run("emulate", "serve", "--socket", path, "--out", out)
            assert second.returncode == 2
            assert b"Address already in use" in second.stderr
            quote = QgsSource(emulated_report(A, RTMR), connect_unix(path)).quote(REPORT_DATA)
            (tmp_path / "quote").write_bytes(quote)
            done = run(
                "emulate",
                "verify",
                tmp_path / "quote",
                "--collateral",
                out / "collateral.json",
                "--root",
                out / "root.der",
                "--json",
            )
            assert json.loads(done.stdout)["mrtd"] == A.hex()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert not path.exists()
