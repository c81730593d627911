"""Write docs/tdx-forgeries.md: ``python -m tests.tdx.forgery_table``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from tdx.emulator.forgeries import FORGERIES, GROUPS, forgeries
from tests.tdx.forged import emulator
from tests.tdx.test_forgeries import STATUS_ONLY, STRICTER
from tests.tdx.vectors import ROOT

PATH = ROOT / "docs" / "tdx-forgeries.md"
HEAD = """# Forgeries

Every forgery the verifier must refuse, made by `tdx.emulator.forgeries`, with the check that
refuses it and what the `dcap-qvl` wheel (0.7) does with the same bytes under the same root. There
are {count}; the wheel accepts {stricter} of them, each with the reason why this verifier does not,
and returns a status for {status} more, leaving the refusal to its caller. Under Intel's root both
refuse all.

`tests/tdx/test_forgeries.py` makes and judges each one, and fails when the wheel becomes as strict.
This page is written by `python -m tests.tdx.forgery_table`.
"""


def text() -> str:
    """Return the page."""
    head = HEAD.format(count=len(FORGERIES), stricter=len(STRICTER), status=len(STATUS_ONLY))
    return "\n".join([head, *lines()]) + "\n"


def lines() -> Iterator[str]:
    """Yield a table for each group."""
    made = forgeries(emulator())
    for group in GROUPS:
        yield f"## {group.__name__}\n"
        yield f"{inspect.getdoc(group)}\n"
        yield "| forgery | what it does | check | the wheel |"
        yield "|---|---|---|---|"
        for name in group.names():
            whole = f"{group.__name__}.{name}"
            forgery = made[whole]()
            doc = inspect.getdoc(getattr(group, name)) or ""
            yield f"| `{name}` | {doc.rstrip('.')} | `{forgery.check}` | {wheel(whole)} |"
        yield ""


def wheel(name: str) -> str:
    """Say what the second verifier does, and why this one is stricter."""
    if name in STATUS_ONLY:
        return "accepts, with its status"
    if name not in STRICTER:
        return "refuses"
    reasons = list(STRICTER.items())
    place = list(STRICTER).index(name)
    while reasons[place][1] == "as above":
        place -= 1
    return f"**accepts**; {reasons[place][1]}"


if __name__ == "__main__":
    PATH.write_text(text())
