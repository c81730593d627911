"""The command line: one module for each verb, no logic beyond parse, call, print, exit code.

Conventions: data on stdout, people on stderr; errors are one line ``error: what — hint``; exit code
0 is success, 1 refused or lost, 2 usage or configuration, 130 Ctrl-C. ``--debug`` as the very first
argument shows the traceback as well.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from zipnet.errors import ZipnetError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]

_INTERRUPTED = 130
_USAGE = 2
_INTERNAL = 1
_EXTRA = ("typer", "pydantic", "pydantic_settings", "prometheus_client", "starlette", "uvicorn")


def main() -> int:
    """Run ``zipnet`` with the arguments of this process; returns the exit code."""
    return run(sys.argv[1:])


def run(arguments: Sequence[str], *, verb: str | None = None) -> int:
    """Run one command and turn whatever it raises into one line and an exit code.

    Args:
        arguments: Words after the program's name.
        verb: The verb, for programs that are one verb (``zipnet-server``); None reads it from the
            arguments.
    """
    words = list(arguments)
    debug = bool(words) and words[0] == "--debug"
    if debug:
        words = words[1:]
    try:
        return _invoke(words, verb)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away; flushing at exit must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERNAL
    except Exception as error:  # noqa: BLE001 - the outermost edge of the program
        if debug:
            traceback.print_exc()
        return _explain(error)


def _invoke(words: list[str], verb: str | None) -> int:
    try:
        from zipnet.cli.app import invoke
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(
            "error: the command line needs packages that are not installed"
            " — pip install 'zipnet[node]'\n"
        )
        return _USAGE
    return invoke(words, verb=verb)


def _explain(error: Exception) -> int:
    """Print the line for a person and return the exit code."""
    known = _leading(error)
    if known is not None:
        sys.stderr.write(f"error: {' '.join(known.message_line.split())}\n")
        return known.exit_code
    # The text of a foreign exception may quote its input, which may be a secret: type only.
    sys.stderr.write(
        f"error: internal fault ({type(error).__name__}) — run again with --debug as the first "
        "argument and report it\n"
    )
    return _INTERNAL


def _leading(error: BaseException) -> ZipnetError | None:
    """Return the first of our errors, also out of the group a TaskGroup wraps it in."""
    if isinstance(error, ZipnetError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = (_leading(inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None
