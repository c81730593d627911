"""The verb table and the program around it; a verb's module is imported when the verb is used.

A verb's module offers ``app``, a :class:`typer.Typer`: with one command it is a plain verb, with
several a family (``descriptor sign``).
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command as command_of

from zipnet.errors import ConfigError
from zipnet.node.build import build_version

__all__ = ["VERBS", "invoke", "new_app"]

_USAGE = 2

VERBS = {
    "server": "zipnet.cli.server",
    "aggregator": "zipnet.cli.aggregator",
    "publish": "zipnet.cli.publish",
    "read": "zipnet.cli.read",
    "gateway": "zipnet.cli.gateway",
    "host": "zipnet.cli.host",
    "micro": "zipnet.cli.micro",
    "keygen": "zipnet.cli.keygen",
    "descriptor": "zipnet.cli.descriptor",
    "config": "zipnet.cli.config",
    "check": "zipnet.cli.check",
    "health": "zipnet.cli.health",
    "safe-mode": "zipnet.cli.safe_mode",
    "audit": "zipnet.cli.audit",
    "archive": "zipnet.cli.archive",
    "logs": "zipnet.cli.logs",
    "token": "zipnet.cli.token",
    "admin": "zipnet.cli.admin",
    "rotate": "zipnet.cli.rotate",
    "decommission": "zipnet.cli.decommission",
}
"""Verbs in the order help shows them, with the module of each."""


def new_app(text: str) -> typer.Typer:
    """Return the Typer a verb's module fills: plain help, no tracebacks of its own."""
    return typer.Typer(
        help=text,
        add_completion=False,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class _Verbs(TyperGroup):
    """A group whose commands come from :data:`VERBS`, each imported on first use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer's own signature
        """Return the verbs this installation has."""
        return [verb for verb, module in VERBS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - typer's own signature
        """Import a verb's module; unknown verbs give None, typer then suggests near ones."""
        return _load(cmd_name) if cmd_name in self.list_commands(ctx) else None


def _load(verb: str) -> Any:  # noqa: ANN401 - typer does not export its command type
    module = importlib.import_module(VERBS[verb])
    command = command_of(module.app)
    command.name = verb
    return command


_program = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"zipnet {build_version()}")
        raise typer.Exit


@_program.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Anonymous broadcast over a DC-net: run nodes, publish, read and verify."""


def invoke(words: list[str], *, verb: str | None = None) -> int:
    """Parse and run; returns the exit code. Errors of ours pass through.

    Args:
        words: Arguments after the program's name; none at all shows the help.
        verb: The verb when the program is one verb (``zipnet-server``), else None.

    Raises:
        ConfigError: When the arguments do not parse.
    """
    program = "zipnet" if verb is None else f"zipnet-{verb}"
    command = command_of(_program) if verb is None else _load(verb)
    if verb is not None and words == ["--version"]:
        typer.echo(f"{program} {build_version()}")
        return 0
    if verb is None and not words:
        command.main(args=["--help"], prog_name=program, standalone_mode=False)
        return _USAGE
    try:
        result = command.main(args=words, prog_name=program, standalone_mode=False)
    except TyperException as error:
        # Typer would print three lines; ours is one, like every other error.
        context = getattr(error, "ctx", None)
        path = context.command_path if context else program
        message = error.format_message().rstrip(".").replace("Value error, ", "")
        raise ConfigError(message, hint=f"see `{path} --help`") from None
    return result if isinstance(result, int) else 0
