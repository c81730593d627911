"""The aggregator as a process: what it refuses before it starts, how it starts and stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.harness.instance_files import InstanceFiles

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(tmp_path, not_after=datetime(2100, 1, 1, tzinfo=UTC))


def command(files: InstanceFiles, *more: str, who: str = "leaf") -> list[str]:
    return [
        *(sys.executable, "-m", "zipnet", "aggregator"),
        *("--descriptor", str(files.descriptor), "--instance", files.name),
        *("--secret-file", str(files.secret_file(who))),
        *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *more,
    ]


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


def refused(files: InstanceFiles, *more: str, who: str = "leaf", **env: str) -> str:
    """Run it to its end; returns the one line it wrote."""
    before = sorted(files.folder.rglob("*"))
    done = subprocess.run(
        command(files, *more, who=who),
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert sorted(files.folder.rglob("*")) == before
    assert not any(secret in line for secret in files.secret_texts)
    return line


def test_a_committee_secret_is_refused_by_any_route(files: InstanceFiles) -> None:
    secret = files.secret_file("committee")
    assert "ommittee" in refused(files, ZIPNET_COMMITTEE_SECRET_FILE=str(secret))
    text = secret.read_text().strip()
    assert "ommittee" in refused(files, ZIPNET_COMMITTEE_SECRET=text)


def test_another_instance_and_an_unregistered_identity_are_named(files: InstanceFiles) -> None:
    assert "other.test" in refused(files, "--instance", "other.test")
    refused(files, who="operator")


def test_it_says_where_it_listens_and_stops_at_a_signal(files: InstanceFiles) -> None:
    process = subprocess.Popen(
        command(files, "--transport", "tls"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        ready = next(line for line in lines if line["event"] == "node_ready")
        assert (ready["aggregator"], ready["parent"]) == ("leaf", "root")
        assert _bound(process.pid) == {
            ("tcp", ready["port"]),
            ("udp", ready["port"]),
            ("tcp", ready["metrics_port"]),
        }
        base = f"http://127.0.0.1:{ready['metrics_port']}"
        with urllib.request.urlopen(f"{base}/healthz", timeout=DEADLINE_S) as answer:  # noqa: S310
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as not_ready:
            urllib.request.urlopen(f"{base}/readyz", timeout=DEADLINE_S)  # noqa: S310
        with not_ready.value as answer:
            reasons = {item["reason"] for item in json.load(answer)["failed"]}
        assert not_ready.value.code == 503
        assert reasons == {"no_server", "no_uplink"}  # nobody else runs
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["event"] == "node_stopped"
    assert err == ""
    assert not any(secret in out for secret in files.secret_texts)


def _bound(pid: int) -> set[tuple[str, int]]:
    """What a process listens on."""
    found: set[tuple[str, int]] = set()
    for item in psutil.Process(pid).net_connections(kind="inet"):
        if item.type == socket.SOCK_DGRAM:
            found.add(("udp", item.laddr[1]))
        elif item.status == psutil.CONN_LISTEN:
            found.add(("tcp", item.laddr[1]))
    return found
