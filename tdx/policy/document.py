"""Read TOML that somebody else wrote: no document may cost more than its size suggests.

The standard library's parser takes memory and time with the square of a key's depth, so that a
dotted key of 200 KB exhausts any machine, and it leaves its stack's limit and the limit of a
number's digits to whoever called.

Rules:

1. A line names at most :data:`MAX_DOTS` dots outside strings and comments, so keys are short.
2. Strings over several lines are refused: rule 1 reads line by line, and no document needs them.
3. Whatever is wrong ends in :class:`ValueError`.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

__all__ = ["MAX_DOTS", "load_document"]

MAX_DOTS = 16
# No string spans lines (rule 2), so from the start of each line this sees what the parser sees.
# One that does not end takes the rest of its line, where the parser stops; that keeps this linear.
_STRING = re.compile(r""""(?:[^"\\]|\\.?)*+(?:"|$)|'[^']*+(?:'|$)""")


def load_document(text: str) -> dict[str, Any]:
    """Parse a TOML document whose size the caller has capped.

    Raises:
        ValueError: It is no TOML, has strings over several lines, keys of more than
            :data:`MAX_DOTS` dots, or is nested deeper than the interpreter goes.
    """
    if '"""' in text or "'''" in text:
        raise ValueError("strings over several lines are not allowed")
    for line in text.split("\n"):
        if line.count(".") > MAX_DOTS and _bare(line).count(".") > MAX_DOTS:
            raise ValueError(f"a line has more than {MAX_DOTS} dots outside strings")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _bare(line: str) -> str:
    return _STRING.sub("", line).partition("#")[0]
