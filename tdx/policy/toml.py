"""Policies as TOML files: load strictly, and write what loads back to the same policy.

Example::

    accept_statuses = ["UpToDate", "SWHardeningNeeded"]
    deny_advisories = ["INTEL-SA-01099"]
    min_evaluation_number = 18
    td_attributes = { required = [28], allowed = [30] }

    [require]
    mrtd = ["<96 hex digits>", "<96 hex digits>"]

    [[variant]]
    name = "release-2"
    rtmr1 = ["<96 hex digits>"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime

from tdx.collateral import TcbStatus
from tdx.errors import PolicyError
from tdx.policy.bits import BitRule
from tdx.policy.document import load_document
from tdx.policy.measurements import Measurements
from tdx.policy.policy import Policy

__all__ = ["dump_policy", "load_policy", "policy_from_table"]

_HASH_BYTES = 32


def load_policy(text: str) -> Policy:
    """Read a policy from the text of a TOML file.

    Raises:
        PolicyError: Not TOML, an unknown key, or a value of the wrong kind.
    """
    try:
        document = load_document(text)
    except ValueError as error:
        raise PolicyError(f"the policy is not TOML: {error}") from None
    return policy_from_table(document)


def policy_from_table(document: Mapping[str, object]) -> Policy:
    """Read a policy from a TOML table that is part of a larger document.

    Raises:
        PolicyError: An unknown key, or a value of the wrong kind.
    """
    unknown = sorted(set(document) - set(_READERS) - {"require", "variant"})
    if unknown:
        raise PolicyError(f"unknown keys: {', '.join(unknown)}", hint="see docs/tdx.md")
    values = {key: _READERS[key](key, document[key]) for key in _READERS if key in document}
    policy = _build(values)
    for register, listed in _table("require", document.get("require", {})).items():
        policy = policy.require(register, *_strings(register, listed))
    for entry in _list("variant", document.get("variant", [])):
        policy = policy.allow_variant(_variant(_table("variant", entry)))
    return policy


def dump_policy(policy: Policy, *, table: str = "") -> str:
    """Write a policy as TOML that :func:`load_policy` reads back to an equal policy.

    Args:
        policy: The policy.
        table: Name of the table of a larger document it becomes, for :func:`policy_from_table`.
    """
    inside = f"{table}." if table else ""
    lines = [
        *([f"[{table}]"] if table else []),
        f"accept_statuses = {_quoted(sorted(policy.accept_statuses))}",
        f"deny_advisories = {_quoted(sorted(policy.deny_advisories))}",
        f"min_evaluation_number = {policy.min_evaluation_number}",
        f"min_tcb_date = {datetime.fromtimestamp(policy.min_tcb_date, UTC):%Y-%m-%dT%H:%M:%SZ}",
        f"grace_period_s = {policy.grace_period_s}",
        f"td_attributes = {_bit_table(policy.td_attributes)}",
        f"xfam = {_bit_table(policy.xfam)}",
        f"allow_td15ex = {str(policy.allow_td15ex).lower()}",
        f"allow_emulated = {str(policy.allow_emulated).lower()}",
        f"platforms = {_quoted(sorted(one.hex() for one in policy.platforms))}",
        f"one_identity_per_platform = {str(policy.one_identity_per_platform).lower()}",
    ]
    if policy.max_collateral_age_s is not None:
        lines.append(f"max_collateral_age_s = {policy.max_collateral_age_s}")
    if policy.baseline.required:
        lines += ["", f"[{inside}require]", *_registers(policy.baseline)]
    for variant in policy.variants:
        lines += [
            "",
            f"[[{inside}variant]]",
            f"name = {_quote(variant.name)}",
            *_registers(variant),
        ]
    return "\n".join(lines) + "\n"


def _build(values: Mapping[str, object]) -> Policy:
    known = {item.name for item in fields(Policy)}
    assert known >= set(values), "every reader names a field"
    return Policy(**values)  # type: ignore[arg-type] # each reader returns its field's type


def _variant(entry: Mapping[str, object]) -> Measurements:
    name = entry.get("name", "variant")
    if not isinstance(name, str):
        raise PolicyError("the name of a variant is text")
    variant = Measurements(name)
    for register, listed in entry.items():
        if register != "name":
            variant = variant.require(register, *_strings(register, listed))
    return variant


def _statuses(key: str, value: object) -> frozenset[TcbStatus]:
    try:
        return frozenset(TcbStatus(text) for text in _strings(key, value))
    except ValueError as error:
        raise PolicyError(f"{key}: {error}") from None


def _advisories(key: str, value: object) -> frozenset[str]:
    return frozenset(_strings(key, value))


def _platforms(key: str, value: object) -> frozenset[bytes]:
    try:
        found = frozenset(bytes.fromhex(text) for text in _strings(key, value))
    except ValueError:
        raise PolicyError(f"{key} are SHA-256 digests in hexadecimal") from None
    if any(len(one) != _HASH_BYTES for one in found):
        raise PolicyError(f"{key} are SHA-256 digests of 32 bytes")
    return found


def _rule(key: str, value: object) -> BitRule:
    table = _table(key, value)
    if set(table) - {"required", "allowed"}:
        raise PolicyError(f"{key} has the keys required and allowed only")
    return BitRule.of(
        required=[_number(key, bit) for bit in _list(key, table.get("required", []))],
        allowed=[_number(key, bit) for bit in _list(key, table.get("allowed", []))],
    )


def _instant(key: str, value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.timestamp())
    if isinstance(value, date) and not isinstance(value, datetime):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    raise PolicyError(f"{key} is a date, or a date and time with its zone")


def _number(key: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise PolicyError(f"{key} is a number that is not negative")
    return value


def _truth(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(f"{key} is true or false")
    return value


def _strings(key: str, value: object) -> list[str]:
    found = [item for item in _list(key, value) if isinstance(item, str)]
    if len(found) != len(_list(key, value)):
        raise PolicyError(f"{key} is a list of texts")
    return found


def _list(key: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise PolicyError(f"{key} is a list")
    return value


def _table(key: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{key} is a table")
    return value


_READERS: dict[str, Callable[[str, object], object]] = {
    "accept_statuses": _statuses,
    "deny_advisories": _advisories,
    "min_evaluation_number": _number,
    "min_tcb_date": _instant,
    "grace_period_s": _number,
    "max_collateral_age_s": _number,
    "td_attributes": _rule,
    "xfam": _rule,
    "allow_td15ex": _truth,
    "allow_emulated": _truth,
    "platforms": _platforms,
    "one_identity_per_platform": _truth,
}


def _registers(group: Measurements) -> list[str]:
    return [
        f"{register} = {_quoted([value.hex() for value in accepted])}"
        for register, accepted in group.required
    ]


def _bit_table(rule: BitRule) -> str:
    required = [bit for bit in range(64) if rule.required >> bit & 1]
    allowed = [bit for bit in range(64) if rule.allowed >> bit & 1]
    return f"{{ required = {required}, allowed = {allowed} }}"


def _quoted(texts: list[str] | list[TcbStatus]) -> str:
    return "[" + ", ".join(_quote(str(text)) for text in texts) + "]"


def _quote(text: str) -> str:
    escaped = "".join(
        f"\\U{ord(char):08x}" if char in '"\\' or not char.isprintable() else char for char in text
    )
    return f'"{escaped}"'
