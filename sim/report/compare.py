"""Two reports side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["compare_reports"]

_CARRIED = ("participants", "used", "void", "reserved")


def compare_reports(one: Path, other: Path) -> tuple[list[str], bool]:
    """Return the figures of two reports side by side, and whether nothing contradicts.

    Two runs of one scenario and seed must have one digest; anything else is only compared.

    Raises:
        ConfigError: When a folder holds no report of a run.
    """
    a, b = _summary(one), _summary(other)
    lines = [f"{'':24} {a['scenario']}/{a['seed']:<14} {b['scenario']}/{b['seed']:<14} ratio"]
    for name in {**a["figures"], **b["figures"]}:
        left, right = a["figures"].get(name, 0.0), b["figures"].get(name, 0.0)
        ratio = f"{right / left:.3f}" if left else "-"
        lines.append(f"{name:24} {left:<16.5g} {right:<16.5g} {ratio}")
    named = ("scenario", "seed", "mode")
    alike = [a.get(name) for name in named] == [b.get(name) for name in named]
    real = a.get("mode") == "cluster" or b.get("mode") == "cluster"
    if real:
        # Real processes draw their own randomness: their rounds are compared by what they carried.
        return [*lines, *_rounds(a, b, _CARRIED)], True
    lines.append(f"event digests are {'equal' if a['digest'] == b['digest'] else 'different'}")
    return [*lines, *_rounds(a, b, (*_CARRIED, "schedule"))], not alike or a["digest"] == b[
        "digest"
    ]


def _rounds(a: dict[str, Any], b: dict[str, Any], named: tuple[str, ...]) -> list[str]:
    left = [[one[name] for name in named] for one in a["rounds"]]
    right = [[one[name] for name in named] for one in b["rounds"]]
    if left == right:
        return [f"all {len(left)} rounds agree in {', '.join(named)}"]
    first = next((i for i, (x, y) in enumerate(zip(left, right, strict=False)) if x != y), None)
    where = f"from record {first}" if first is not None else "in their number"
    return [f"rounds differ {where}"]


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no report") from error
    if not isinstance(found, dict) or "figures" not in found:
        raise ConfigError(f"{folder} holds no report of a run")
    return found
