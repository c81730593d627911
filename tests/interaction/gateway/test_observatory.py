"""The observatory in a real browser: live, without scripts, and to axe's content."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.browser import open_browser

if TYPE_CHECKING:
    import zipnet
    from zipnet.gateway import Gateway

ARTEFACTS = os.environ.get("ZIPNET_ARTEFACTS")
EVIL = "<img src=x onerror=\"document.title='owned'\"> and <b>bold</b>"


def _axe() -> str:
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("the package axe-core-python is not installed")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def _watch(url: str, shots: Path, said: str) -> dict[str, object]:
    """Look at the page while rounds go on; returns what was seen."""
    with open_browser() as browser:
        browser.open(url)
        browser.until("return document.getElementById('state').textContent === 'live'")
        first = int(browser.run("return document.getElementById('round').textContent"))
        browser.until(
            "return Number(document.getElementById('round').textContent) >= arguments[0]", first + 3
        )
        browser.until(
            "return [...document.querySelectorAll('#list q')]"
            ".some((q) => q.textContent === arguments[0])",
            said,
        )
        browser.run(_axe())
        found = browser.run_async(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']}).then((r) => done(r.violations.map("
            "(v) => v.id + ': ' + v.nodes.map((n) => n.target.join(' ')).join(', '))))"
        )
        browser.screenshot(shots / "observatory.png")
        return {
            "violations": found,
            "complaints": browser.complaints(),
            "title": browser.run("return document.title"),
            "images": browser.run("return document.images.length"),
            "asked": browser.run(
                "return performance.getEntriesByType('resource').map((entry) => entry.name)"
            ),
            "bars": browser.run("return document.querySelectorAll('#crowd rect').length"),
        }


@pytest.mark.timeout(120)
async def test_rounds_appear_live_and_nothing_is_wrong_with_the_page(
    gateway: Gateway, talker: zipnet.Publisher, tmp_path: Path
) -> None:
    shots = Path(ARTEFACTS) if ARTEFACTS else tmp_path
    watching = asyncio.create_task(asyncio.to_thread(_watch, gateway.url + "/", shots, EVIL))
    await talker.publish(EVIL.encode())
    seen = await watching
    assert seen["violations"] == []
    assert seen["complaints"] == []
    assert seen["title"] == "harness.test · observatory"
    assert seen["images"] == 0, "strangers' words are text"
    asked = seen["asked"]
    assert isinstance(asked, list)
    assert all(str(url).startswith(gateway.url) for url in asked), asked
    assert isinstance(seen["bars"], int)
    assert seen["bars"] > 3
    assert (shots / "observatory.png").stat().st_size > 10_000


def _read_without_scripts(url: str) -> tuple[list[str], int]:
    with open_browser(javascript=False) as browser:
        browser.open(url)
        # The driver's own script runs in a world of its own even where the page's may not.
        texts = browser.run(
            "return [...document.querySelectorAll('#list q')].map((q) => q.textContent)"
        )
        return texts, browser.run("return document.querySelectorAll('#rows tr').length")


@pytest.mark.timeout(120)
async def test_the_log_reads_without_javascript(gateway: Gateway, talker: zipnet.Publisher) -> None:
    await talker.publish(b"said without scripts")
    history = gateway._history
    async with asyncio.timeout(20), history._changed:
        await history._changed.wait_for(lambda: history.latest_talk(1))
    texts, rows = await asyncio.to_thread(_read_without_scripts, gateway.url + "/")
    assert "said without scripts" in texts
    assert rows >= 1
