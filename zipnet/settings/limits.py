"""The one setting for every bound of the wall: ``requests_per_s=200, handshakes=32``."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final, get_type_hints

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIMITS_FIX", "bounds_of", "parse_limits"]

_ITEM = re.compile(r"([a-z_]{1,32})\s*=\s*(\d{1,12}(?:\.\d{1,6})?)", re.ASCII)
_NAMES: Final = tuple(field.name for field in fields(WallBounds))
_WHOLE: Final = {name for name, kind in get_type_hints(WallBounds).items() if kind is int}

LIMITS_FIX: Final = f"write name=number, separated by commas, of: {', '.join(_NAMES)}"
"""What to write, with all names."""


def parse_limits(value: object) -> Mapping[str, float]:
    """Read bounds by name; a name twice, a name that is none, or a number that is none is refused.

    Raises:
        ValueError: As pydantic wants it.
    """
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004 - pydantic translates ValueError
    found: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        match = _ITEM.fullmatch(item)
        if match is None or match[1] not in _NAMES or match[1] in found:
            raise ValueError("not a list of limits")
        if match[1] in _WHOLE and "." in match[2]:
            raise ValueError("a limit that must be a whole number is none")
        found[match[1]] = float(match[2])
    return found


def bounds_of(limits: Mapping[str, float]) -> WallBounds:
    """Return the defaults with these changes.

    Raises:
        ConfigError: When nobody could keep them.
    """
    changed = {name: int(n) if name in _WHOLE else n for name, n in limits.items()}
    try:
        return replace(DEFAULT_BOUNDS, **changed)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"setting LIMITS: {error}", hint=LIMITS_FIX) from error
