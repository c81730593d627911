"""The ``tdx`` command: exit codes, JSON, and words for people."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tdx.cli import main
from tdx.errors import Check, QuoteError, moment
from tests.tdx import vectors
from tests.tdx.test_vectors import PAIRS, Pair


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def run_process(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run the command in its own process, as a shell would."""
    done = subprocess.run(
        [sys.executable, "-c", "from tdx.cli import main; main()", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=vectors.ROOT,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run the same entry point in this process: starting Python is most of a command's time."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tdx", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    assert isinstance(out.buffer, io.BytesIO)
    assert isinstance(err.buffer, io.BytesIO)
    return Done(code, out.buffer.getvalue(), err.buffer.getvalue())


def files(pair: Pair) -> tuple[Path, Path]:
    root = vectors.directory()
    return root / "quotes" / f"{pair.quote}.bin", root / "collateral" / f"{pair.collateral}.json"


def run_pair(pair: Pair, *more: str | Path) -> Done:
    quote, collateral = files(pair)
    return run("verify", quote, "--collateral", collateral, "--at", pair.at, "--json", *more)


@pytest.mark.parametrize("title", PAIRS)
def test_verify_prints_the_verdict_of_every_pair(title: str) -> None:
    pair = PAIRS[title]
    done = run_pair(pair)
    answer = json.loads(done.stdout)
    assert list(answer) == ["verdict", "status", "advisories", "mrtd", "rtmr", "check"]
    if pair.check is None:
        assert done.returncode == 0
        assert (answer["verdict"], answer["status"]) == ("accepted", pair.status)
        assert len(answer["mrtd"]) == 96
        assert [len(value) for value in answer["rtmr"]] == [96] * 4
        assert answer["check"] is None
    else:
        assert done.returncode == 1
        assert (answer["verdict"], answer["check"]) == ("rejected", pair.check)
        assert (answer["status"], answer["mrtd"], answer["rtmr"]) == (pair.status, None, [])
        assert pair.check.encode() in done.stderr


def test_the_installed_command_exits_0_1_and_2() -> None:
    for title, code in (("v4 up to date", 0), ("junk after the quote", 1)):
        pair = PAIRS[title]
        quote, collateral = files(pair)
        done = run_process("verify", quote, "--collateral", collateral, "--at", pair.at)
        assert done.returncode == code
    assert run_process("verify").returncode == 2


def test_without_the_command_line_extra_it_says_so_and_exits_2() -> None:
    code = "import sys; sys.modules['typer'] = None; from tdx.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, cwd=vectors.ROOT, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: the tdx command needs more")
    assert done.stderr.count(b"\n") == 1


def test_a_policy_file_decides(tmp_path: Path) -> None:
    pair = PAIRS["GCP out of date"]
    policy = tmp_path / "policy.toml"
    policy.write_text('accept_statuses = ["UpToDate", "OutOfDate"]\n')
    done = run_pair(pair, "--policy", policy)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["status"] == "OutOfDate"
    assert len(answer["advisories"]) == 7
    policy.write_text('accept_statuses = ["OutOfDate"]\n[require]\nmrtd = ["' + "00" * 48 + '"]\n')
    refused = run_pair(pair, "--policy", policy)
    assert (refused.returncode, json.loads(refused.stdout)["check"]) == (1, "mrtd")


def test_report_data_is_compared_when_given() -> None:
    pair = PAIRS["v4 up to date"]
    shown = json.loads(run("show", files(pair)[0], "--json").stdout)
    assert run_pair(pair, "--report-data", shown["report_data"]).returncode == 0
    wrong = run_pair(pair, "--report-data", "00" * 64)
    assert (wrong.returncode, json.loads(wrong.stdout)["check"]) == (1, "report_data")


def test_verify_reads_the_quote_from_stdin_and_speaks_to_people() -> None:
    pair = PAIRS["v4 up to date"]
    quote, collateral = files(pair)
    done = run(
        "verify", "-", "--collateral", collateral, "--at", str(pair.now), stdin=quote.read_bytes()
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"accepted: UpToDate\n")


def test_show_says_that_nothing_is_verified() -> None:
    done = run("show", files(PAIRS["v5 up to date"])[0])
    assert done.returncode == 0
    assert b"UNVERIFIED" in done.stderr
    assert b"tee_tcb_svn2" in done.stdout
    refused = run("show", files(PAIRS["SGX quote"])[0])
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"error: version:" in refused.stderr


USAGE = {
    "no command": [],
    "unknown command": ["believe"],
    "no collateral": ["verify", "q"],
    "no such file": ["verify", "no-such", "--collateral", "no-such"],
    "odd time": ["verify", "-", "--collateral", "/dev/null", "--at", "soon"],
    "unknown option": ["verify", "-", "--collateral", "x", "--root", "mine"],
}


@pytest.mark.parametrize("title", USAGE)
def test_usage_errors_exit_2_without_a_traceback(title: str) -> None:
    arguments = USAGE[title]
    done = run(*arguments, stdin=b"")
    # An empty bundle is refused before the time is looked at, so give it a real one there.
    if title == "odd time":
        collateral = files(PAIRS["v4 up to date"])[1]
        done = run("verify", "-", "--collateral", collateral, "--at", "soon")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_rejection_says_what_was_expected_and_shows_moments_as_dates() -> None:
    error = QuoteError(Check.PCK_CRL_TIME, f"the CRL is valid at {moment(0)}", value=moment(60))
    assert str(error) == (
        "pck_crl_time: expected that the CRL is valid at 1970-01-01T00:00:00Z "
        "(found 1970-01-01T00:01:00Z)"
    )
    assert moment(1 << 80) == str(1 << 80), "what is no date stays what it is"
    assert b"-h" in run("verify", "-h").stdout


def test_a_broken_policy_or_report_data_exits_2(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("nonsense = 1\n")
    pair = PAIRS["v4 up to date"]
    for more in (("--policy", policy), ("--report-data", "zz"), ("--report-data", "00")):
        done = run_pair(pair, *more)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"error: " in done.stderr
