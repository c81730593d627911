"""What a user meets first: types that hold, help that reads well, errors that say what to do."""

from __future__ import annotations

import inspect
import pydoc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zipnet
from zipnet import errors

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "typing" / "user_script.py"


@pytest.mark.timeout(300)
def test_a_users_script_passes_mypy_strict(tmp_path: Path) -> None:
    """Outside the project, with mypy's own strict settings and the package found as installed."""
    shutil.copyfile(SCRIPT, tmp_path / "script.py")
    (tmp_path / "wrong.py").write_text(
        "import zipnet\n"
        "async def f(p: zipnet.Publisher) -> int:\n"
        "    r = await p.publish('text')\n"  # not bytes
        "    return r.rounds\n"  # no such attribute
        "x: str = zipnet.always()\n"
        "zipnet.Pigeon\n"
    )
    said = {}
    for name in ("script.py", "wrong.py"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--strict", "--config-file=", name),
                *("--cache-dir", str(ROOT / ".mypy_cache" / "user"), "--follow-imports=silent"),
            ],
            cwd=tmp_path,
            env={"MYPYPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        said[name] = (done.returncode, done.stdout)
    assert said["script.py"][0] == 0, said["script.py"][1]
    lines = said["wrong.py"][1].splitlines()
    wrong = {line.split(":")[1] for line in lines if line.startswith("wrong.py:")}
    assert wrong == {"3", "4", "5", "6"}, said["wrong.py"][1]


@pytest.mark.parametrize("name", ["Publisher", "Reader", "Channel", "Outbox", "Receipt"])
def test_help_reads_well(name: str) -> None:
    thing = getattr(zipnet, name)
    first = inspect.getdoc(thing) or ""
    assert first.splitlines()[0].endswith(".")
    assert max(map(len, first.splitlines())) <= 100
    for member, value in inspect.getmembers(thing):
        public = not member.startswith("_") and member in vars(thing)
        if public and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member} says nothing"


def test_the_publishers_help_shows_how_to_use_it_and_what_can_come_of_it() -> None:
    text = pydoc.plain(pydoc.render_doc(zipnet.Publisher))
    assert "Example::" in text
    assert "async with" in text
    for outcome in ("NotSent", "Unknown", "Refused"):
        assert outcome in text


def test_every_exported_error_is_explained_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text()
    for name in zipnet.__all__:
        thing = getattr(zipnet, name)
        if inspect.isclass(thing) and issubclass(thing, Exception | Warning):
            assert f"`{name}`" in guide, name
    for name in ("ConfigError", "LocalProtocolError", "TransportError", "VerificationError"):
        assert getattr(zipnet, name) is getattr(errors, name)
        assert f"`{name}`" in guide, name
