"""What docs/tdx.md shows is what the code does."""

from __future__ import annotations

import json
import re

import pytest

from tdx.emulator.forgeries import FORGERIES
from tdx.errors import Check
from tdx.policy import DEFAULT_TD_ATTRIBUTES, DEFAULT_XFAM, load_policy
from tests.tdx import forgery_table, vectors
from tests.tdx.test_cli import run
from tests.tdx.test_forgeries import STRICTER

TEXT = (vectors.ROOT / "docs" / "tdx.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def test_the_policy_shown_loads_and_shows_the_default_masks() -> None:
    text = block("toml")
    for place, words in enumerate(("<96 hex digits>", "<another that will do>")):
        text = text.replace(words, f"{place:02x}" * 48)
    policy = load_policy(text)
    assert (policy.td_attributes, policy.xfam) == (DEFAULT_TD_ATTRIBUTES, DEFAULT_XFAM)
    assert len(policy.variants) == 1


def test_the_table_of_checks_names_them_all_and_no_other() -> None:
    rows = [line.split("|")[3] for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_*]+)`", row)}
    for name in named:
        prefix = name.removesuffix("*")
        assert any(check == name or check.startswith(prefix) for check in Check), name
    # Policy checks are shown with an ellipsis; the rest is complete.
    policy = {"tcb_status", "advisory", "evaluation_number", "tcb_date", "td_debug"}
    policy |= {"td_attributes", "xfam", "mrservicetd", "mrseam", "mrconfigid", "mrowner"}
    policy |= {
        "second_verifier",
        "mrownerconfig",
        "mrtd",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "rtmr3",
        "variant",
    }
    prefixes = tuple(name.removesuffix("*") for name in named)
    missing = [check for check in Check if check not in policy and not check.startswith(prefixes)]
    assert missing == []


def test_the_list_of_forgeries_is_that_of_the_code() -> None:
    assert forgery_table.PATH.read_text() == forgery_table.text(), (
        "run python -m tests.tdx.forgery_table"
    )


def test_the_page_counts_forgeries_and_exceptions_right() -> None:
    found = re.search(r"(\d+) named forgeries.*?(\d+) of them", TEXT, re.DOTALL)
    assert found is not None
    assert tuple(map(int, found.groups())) == (len(FORGERIES), len(STRICTER))


def test_the_json_shown_has_the_keys_printed() -> None:
    shown = json.loads(block("json"))
    assert list(shown) == ["verdict", "status", "advisories", "mrtd", "rtmr", "check"]


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"^\$ tdx ((?:emulate )?\w+)", TEXT, re.MULTILINE)))
)
def test_every_command_shown_exists(command: str) -> None:
    assert run(*command.split(), "--help").returncode == 0
