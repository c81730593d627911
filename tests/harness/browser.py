"""Headless Chromium, driven by its own driver over the WebDriver protocol: no library in between.

Both are Debian packages (``chromium``, ``chromium-driver``; ``make client-tools`` installs them
where that is possible). Where they are not there the tests that need them are skipped with that
reason, or fail when ``ZIPNET_REQUIRE_BROWSER`` is set.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Browser", "open_browser"]

_START_S = 30.0
_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # a container has no user namespaces; the only page shown is the test's own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1200,1600",
]


class Browser:
    """One session of a headless Chromium."""

    def __init__(self, base: str, session: str) -> None:
        self._base = f"{base}/session/{session}"

    def open(self, url: str) -> None:
        """Load a page."""
        _call("POST", f"{self._base}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the page says
        """Run a script in the page and return its result."""
        body = {"script": script, "args": list(arguments)}
        return _call("POST", f"{self._base}/execute/sync", body)

    def run_async(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - as above
        """Run a script that calls its last argument with the result."""
        body = {"script": script, "args": list(arguments)}
        return _call("POST", f"{self._base}/execute/async", body)

    def until(self, script: str, *arguments: object, deadline_s: float = 30.0) -> None:
        """Wait until a script returns something true."""
        end = time.monotonic() + deadline_s
        while not self.run(script, *arguments):
            assert time.monotonic() < end, f"the page never said: {script}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write what the page looks like as a PNG."""
        path.write_bytes(base64.b64decode(_call("GET", f"{self._base}/screenshot", None)))

    def complaints(self) -> list[str]:
        """Return what the page put on the console as warnings and errors."""
        entries = _call("POST", f"{self._base}/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries]


@contextmanager
def open_browser(*, javascript: bool = True) -> Iterator[Browser]:
    """Start Chromium, with or without JavaScript, and end it."""
    chromium, driver = _programs()
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="zipnet-browser-") as profile:
        process = subprocess.Popen(
            [driver, f"--port={port}", "--log-level=OFF"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        base = f"http://127.0.0.1:{port}"
        session = None
        try:
            _wait_up(base, process)
            session = _call("POST", f"{base}/session", _wanted(chromium, profile, javascript))
            yield Browser(base, session["sessionId"])
        finally:
            if session is not None:
                _call("DELETE", f"{base}/session/{session['sessionId']}", None)
            process.terminate()
            process.wait(20)


def _programs() -> tuple[str, str]:
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        reason = "chromium and chromium-driver are not installed (make client-tools)"
        if os.environ.get("ZIPNET_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found[0], found[1]


def _wanted(chromium: str, profile: str, javascript: bool) -> dict[str, object]:
    options: dict[str, object] = {
        "binary": chromium,
        "args": [*_ARGUMENTS, f"--user-data-dir={profile}/data"],
    }
    if not javascript:
        options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
    logs = {"browser": "WARNING"}
    return {
        "capabilities": {
            "alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": logs,
            }
        }
    }


def _wait_up(base: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, "chromedriver ended"
        assert time.monotonic() < end, "chromedriver did not come up"
        try:
            if _call("GET", f"{base}/status", None)["ready"]:
                return
        except OSError:
            time.sleep(0.05)


def _call(method: str, url: str, body: object) -> Any:  # noqa: ANN401 - the protocol's values
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"the browser refused: {error.read()[:500]!r}") from error
