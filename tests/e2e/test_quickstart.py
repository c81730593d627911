"""The quickstart against the network that stays up: what the README shows is what runs."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import zipnet
from examples import quickstart
from tests.harness.network import clean_environment, wait_for

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The descriptor of ``make demo KEEP=1``, which is stopped as Ctrl-C stops it."""
    folder = tmp_path_factory.mktemp("stay")
    shown = folder / "demo.toml"
    out = folder / "out"
    with out.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.stay", "--descriptor", str(shown)],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(
            lambda: b"is up" in out.read_bytes() or process.poll() is not None, "the demo network"
        )
        assert process.poll() is None, out.read_text()
        assert f"its descriptor is {shown}" in out.read_text()
        yield shown
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, out.read_text()
    assert "every process is stopped" in out.read_text()
    assert not shown.exists()


def readme_lines() -> str:
    found = re.search(
        r"<!-- quickstart: begin -->\n```python\n(.*?)```",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    assert found
    return found[1]


def test_the_readmes_five_lines_are_the_quickstarts() -> None:
    source = inspect.getsource(quickstart.publish)
    without_docstring = re.sub(r'    """.*?"""\n', "", source, flags=re.DOTALL)
    assert readme_lines() == without_docstring


def test_a_second_network_leaves_the_firsts_descriptor_alone(descriptor: Path) -> None:
    before = descriptor.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "examples.stay", "--descriptor", str(descriptor)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "a network that is up keeps its descriptor" in done.stderr
    assert descriptor.read_bytes() == before


def test_the_quickstart_publishes_and_prints_its_receipt(descriptor: Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/quickstart.py", str(descriptor)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"published in round \d+, slot \d+", done.stdout)
    assert re.search(r"one of [5-9] participants", done.stdout)
    assert re.search(r"record hash [0-9a-f]{64}", done.stdout)


def test_the_readmes_lines_run_as_they_stand(descriptor: Path) -> None:
    names: dict[str, object] = {"zipnet": zipnet}
    exec(readme_lines(), names)  # noqa: S102 - the README is what is tested
    publish = names["publish"]
    assert callable(publish)
    call: Callable[[str, bytes], Awaitable[zipnet.Receipt]] = publish

    async def both() -> list[bytes]:
        receipt = await call(str(descriptor), b"from the README")
        trusted = zipnet.load_descriptor(descriptor)
        async with zipnet.Reader(trusted, follow=False) as reader:
            return [m.payload async for m in reader if m.message_id == receipt.message_id]

    assert asyncio.run(both()) == [b"from the README"]


def test_without_a_network_the_quickstart_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py")],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: cannot read descriptor")
    assert len(done.stderr.splitlines()) == 1
