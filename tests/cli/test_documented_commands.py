"""Commands that the documents show exist, take the options they are shown with, and lack none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import sim.cli
import tdx.cli
from zipnet.cli.app import VERBS, _load

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("ops/**/*.md"),
    *ROOT.glob("ops/settings/*.toml"),
    *ROOT.glob("ops/systemd/*"),
]
PROGRAMS: dict[str, Any] = {
    "tdx": get_command(tdx.cli.app),
    "zipnet-sim": get_command(sim.cli.app),
}
SHOWN = re.compile(r"(?<![\w/.-])(zipnet-sim|zipnet|tdx) ([a-z][^`\n#|]*)")
OPTION = re.compile(r"--?[a-z][a-z-]*")
FEWEST = 100


def _command(program: str, words: list[str]) -> Any:  # noqa: ANN401 - typer exports no such type
    """Return the command that words begin with, without those; None where it is none."""
    if program == "zipnet":
        if words[0] not in VERBS:
            return None
        found = _load(words.pop(0))
    else:
        found = PROGRAMS[program]
    while hasattr(found, "commands"):
        if not words or words[0] not in found.commands:
            return None
        found = found.commands[words.pop(0)]
    return found


def _shown(text: str) -> list[tuple[str, Any, list[str]]]:
    """Return what is shown, the command and the options it is shown with."""
    found = []
    for match in SHOWN.finditer(re.sub(r"\\\n\s*", " ", text)):
        words = match[2].split()
        command = _command(match[1], words)
        if command is not None:
            stripped = (word.strip("`.,;:()").partition("=")[0] for word in words)
            options = [word for word in stripped if OPTION.fullmatch(word)]
            found.append((match[0], command, options))
    return found


def test_every_option_in_the_documents_is_one_and_whole_commands_are_whole() -> None:
    count = 0
    for document in DOCUMENTS:
        for shown, command, options in _shown(document.read_text(encoding="utf-8")):
            count += 1
            where = f"{document.relative_to(ROOT)}: {shown}"
            known = {name for item in command.params for name in item.opts} | {"--help", "-h"}
            assert not set(options) - known, where
            if "--out" not in options or "…" in shown:
                continue  # a mention, not something to type
            for item in command.params:
                if item.required and item.param_type_name == "option":
                    assert set(item.opts) & set(options), f"{where}: {item.opts} is missing"
    assert count > FEWEST, "the documents show more than that"


@pytest.mark.parametrize(
    "line", ["zipnet token mint --kye k --out t", "zipnet token warrant --key k --to p --out w"]
)
def test_what_cannot_be_typed_is_noticed(line: str) -> None:
    ((_, command, options),) = _shown(line)
    known = {name for item in command.params for name in item.opts}
    required = [item.opts for item in command.params if item.required and item.opts[0][0] == "-"]
    assert set(options) - known or any(not set(names) & set(options) for names in required)
