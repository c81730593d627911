"""Promises of the command line itself: one-line errors, exit codes, no traceback unless asked."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness.command import zipnet
from zipnet import cli
from zipnet.cli.app import VERBS
from zipnet.errors import ConfigError, NotSent, VerificationError

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-5d1c"


Outcome = tuple[int, str]


def _outcome(monkeypatch: pytest.MonkeyPatch, raised: BaseException, *words: str) -> Outcome:
    """Run the program with a verb that raises; returns exit code and what people see."""

    def fail(_words: list[str], *, verb: str | None = None) -> int:
        raise raised

    err = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr("zipnet.cli.app.invoke", fail)
        patch.setattr(sys, "stderr", err)
        code = cli.run(words)
    return code, err.getvalue()


CASES: dict[str, tuple[BaseException, Outcome]] = {
    "configuration": (
        ConfigError("port is taken", hint="choose another"),
        (2, "error: port is taken — choose another\n"),
    ),
    "refused": (
        VerificationError("record does not verify"),
        (1, "error: record does not verify\n"),
    ),
    "not sent": (NotSent("no way out", message=CANARY.encode()), (1, "error: no way out\n")),
    "several lines become one": (ConfigError("a\nb", hint="c\n d"), (2, "error: a b — c d\n")),
    "ours inside a task group's": (
        ExceptionGroup("g", [ValueError(CANARY), ExceptionGroup("h", [ConfigError("taken")])]),
        (2, "error: taken\n"),
    ),
    "a fault shows its type only": (
        KeyError(CANARY),
        (
            1,
            (
                "error: internal fault (KeyError) — run again with --debug as the first argument "
                "and report it\n"
            ),
        ),
    ),
    "Ctrl-C": (KeyboardInterrupt(), (130, "")),
}


@pytest.mark.parametrize("case", CASES.keys())
def test_whatever_is_raised_ends_in_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    raised, expected = CASES[case]
    assert _outcome(monkeypatch, raised) == expected
    assert CANARY not in expected[1]


def test_debug_shows_the_traceback_and_keeps_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code, err = _outcome(monkeypatch, ConfigError("taken"), "--debug", "server")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: taken\n")


def test_version_help_and_unknown_verbs(tmp_path: Path) -> None:
    version = zipnet("--version", cwd=tmp_path)
    assert (version.code, version.err) == (0, "")
    assert version.out.startswith("zipnet ")
    help_text = zipnet("--help", cwd=tmp_path)
    assert help_text.code == 0
    assert [verb for verb in VERBS if f"\n  {verb}" not in help_text.out] == []
    alone = zipnet(cwd=tmp_path)
    assert (alone.code, alone.out, alone.err) == (2, help_text.out, "")


USAGE = {
    "unknown verb": (["publishx"], "error: No such command 'publishx'"),
    "unknown option": (["keygen", "--nonsense"], "error: No such option: --nonsense"),
    "missing option": (["keygen"], "error: Missing option '--out'"),
    "no such choice": (
        ["keygen", "king", "--out", "k"],
        "error: Invalid value for 'kind': 'king' is not one of",
    ),
    "missing member of a family": (["descriptor"], "error: Missing command"),
}


@pytest.mark.parametrize("case", USAGE.keys())
def test_arguments_that_do_not_parse_are_one_line_and_exit_2(tmp_path: Path, case: str) -> None:
    words, expected = USAGE[case]
    done = zipnet(*words, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(expected)
    assert done.err.endswith("--help`\n")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_verb_that_cannot_be_imported_does_not_break_the_others(tmp_path: Path) -> None:
    program = (
        "import zipnet.cli.app as a; a.VERBS['ghost'] = 'zipnet.cli.ghost';"
        "from zipnet.cli import main; sys.exit(main())"
    )
    assert "ghost" not in zipnet("--help", cwd=tmp_path, program=program).out
    assert zipnet("ghost", cwd=tmp_path, program=program).code == 2
    assert zipnet("--version", cwd=tmp_path, program=program).code == 0


def test_without_the_node_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "sys.modules['typer'] = None;"
        "import importlib.abc;"
        "from zipnet.cli import main; sys.exit(main())"
    )
    done = zipnet("--version", cwd=tmp_path, program=program)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "zipnet[node]" in done.err


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    program = (
        "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
        "from zipnet.cli import main; sys.exit(main())"
    )
    done = zipnet("--version", cwd=tmp_path, program=program)
    assert "Traceback" not in done.everything


def test_importing_the_command_line_is_light(tmp_path: Path) -> None:
    program = (
        "from zipnet.cli import main; import zipnet.cli.app;"
        "heavy = {'aioquic', 'pysyncobj', 'uvicorn', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = zipnet(cwd=tmp_path, program=program)
    assert (done.code, done.err) == (0, "")
