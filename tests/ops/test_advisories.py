"""``make advisories``: the auditor it runs, against a database that listens on this machine.

The database at osv.dev is out of a test's reach; this one answers its query as its documentation
says. The auditor, the locks and the script are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.ops.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDITOR = ROOT / ".venv" / "audit" / "bin" / "pip-audit"


@contextmanager
def database(vulnerable: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a database that knows something about one package; yields its address and who asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = query["package"]["name"], query["version"]
            asked.append(name)
            affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [version]}
            vuln = {"id": "TEST-2026-1", "summary": "made up", "affected": [affected]}
            body = json.dumps({"vulns": [vuln]} if name == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(address: str) -> subprocess.CompletedProcess[str]:
    if not AUDITOR.exists():
        pytest.skip("the auditor is not installed (make .venv/.audit)")
    return subprocess.run(
        [ROOT / "ops" / "advisories.sh", str(AUDITOR), "node"],
        env={**os.environ, "OSV_URL": address, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.requirement("M11")
def test_every_locked_package_is_asked_about_and_a_known_hole_fails() -> None:
    lock = (ROOT / "requirements" / "node.txt").read_text("utf-8")
    locked = set(re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE))
    with database("nobody") as (address, asked):
        done = audit(address)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"none known for {len(locked)} packages" in done.stdout
    # Packages of other platforms or Pythons are in the lock as well, and not asked about here.
    assert {"cryptography", "aioquic", "msgspec", "biscuit-python"} <= set(asked) <= locked
    with database("aioquic") as (address, _asked):
        done = audit(address)
    assert done.returncode == 1
    assert "aioquic" in done.stderr
    assert "TEST-2026-1" in done.stderr


@pytest.mark.requirement("M11")
def test_a_database_out_of_reach_is_no_clean_bill() -> None:
    with database("nobody") as (address, _asked):
        pass
    done = audit(address)
    assert done.returncode == 3
    assert "nothing was checked" in done.stderr
