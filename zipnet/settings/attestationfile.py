"""The ``[tdx]`` table of a descriptor on its way in: from files and options to text.

The schema belongs to :mod:`zipnet.protocol.attestation`, which parses what is written here.
"""

from __future__ import annotations

import base64
from types import MappingProxyType
from typing import TYPE_CHECKING

from tdx.errors import PolicyError
from tdx.policy import dump_policy, load_policy
from zipnet.errors import ConfigError
from zipnet.protocol.attestation import (
    ATTESTATION_OFF,
    AttestationMode,
    AttestationTerms,
    Gate,
    make_terms,
)
from zipnet.settings.bounded import read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tdx.policy import Policy

__all__ = ["attestation_lines", "draft_attestation"]

_MAX_FILE_BYTES = 64 * 1024


def draft_attestation(
    mode: AttestationMode,
    *,
    root: Path | None,
    policies: Mapping[Gate, Path | None],
    lifetime_s: int,
) -> AttestationTerms:
    """Read what a descriptor shall ask of platforms.

    Args:
        mode: Where evidence comes from.
        root: Root certificate (DER) of an emulator.
        policies: Policy file of each role; a role without one is ungated.
        lifetime_s: Longest window of evidence.

    Raises:
        ConfigError: When a file cannot be used or does not fit the mode.
    """
    if mode is AttestationMode.OFF:
        if root is not None or any(policies.values()):
            raise ConfigError("policies and a root are for --tdx required or emulated")
        return ATTESTATION_OFF
    if policies.get(Gate.COMMITTEE) is None:
        raise ConfigError(
            f"--tdx {mode} says nothing about the servers' platforms, which are always attested",
            hint="name their policy: --tdx-committee FILE",
        )
    read = {gate: _read_policy(gate, path) for gate, path in policies.items() if path is not None}
    der = None if root is None else read_bounded(root, _MAX_FILE_BYTES, what="--tdx-root")
    return make_terms(mode, root_der=der, policies=MappingProxyType(read), lifetime_s=lifetime_s)


def _read_policy(gate: Gate, path: Path) -> Policy:
    data = read_bounded(path, _MAX_FILE_BYTES, what=f"--tdx-{gate}")
    try:
        return load_policy(data.decode("utf-8"))
    except (UnicodeDecodeError, PolicyError) as error:
        raise ConfigError(f"--tdx-{gate}: {path}: {error}") from error


def attestation_lines(terms: AttestationTerms) -> list[str]:
    """Return the lines of the ``[tdx]`` table."""
    lines = ["", "[tdx]", f'mode = "{terms.mode.value}"']
    if terms.mode is AttestationMode.OFF:
        return lines
    if terms.root_der is not None:
        lines.append(f'root = "{base64.b64encode(terms.root_der).decode()}"')
    lines.append(f"ungated = [{', '.join(repr(gate.value) for gate in terms.ungated)}]")
    lines.append(f"lifetime_s = {terms.lifetime_s}")
    for gate, policy in terms.policies.items():
        lines += ["", dump_policy(policy, table=f"tdx.{gate.value}").rstrip("\n")]
    return lines
