"""The demo is the README's first command: it ends as promised, or says what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.network import clean_environment

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]


def run_demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.requirement("D2")
def test_the_demo_ends_as_the_readme_says(tmp_path: Path) -> None:
    lines = ["one", "two: ünïcødé", "two: ünïcødé", "long " + "x" * 600, "  spaces kept  "]
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    done = run_demo("--messages", file)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(r"demo ok: published=5 recovered=5 rounds=(\d+) verified=(\d+)", last)
    assert found, last
    assert int(found[1]) == int(found[2]) > 0
    for line in lines:
        assert line in done.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read"), (b"\xff\xfe", "not UTF-8"), (b"\n \n", "no lines")],
)
def test_a_file_the_demo_cannot_use_is_named(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "lines.txt"
    if content is not None:
        file.write_bytes(content)
    done = run_demo("--messages", file)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
