"""What a descriptor asks of platforms: who must show a quote, under which root, by which policy.

protocol.md §7. The terms are part of the group id, so parties that ask different things of each
other are in different groups; a network of emulated platforms can never talk to a real one.

Rules:

1. ``off`` asks nothing of anybody. ``required`` trusts Intel's root, ``emulated`` one emulator's,
   which the descriptor names.
2. The committee is always asked. An aggregator or a client is asked too unless the descriptor
   lists its role as ``ungated``; nobody is let off by leaving something out.
3. Servers among themselves answer a challenge made for that very link. Everybody else shows a
   ticket with a short window. Anonymous readers show nothing and are shown nothing: what they read
   is public and verified by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tdx.errors import PolicyError
from tdx.policy import Policy, policy_from_table
from tdx.trust import TrustRoot
from zipnet.errors import ConfigError
from zipnet.protocol.encoding import Writer
from zipnet.protocol.ids import Digest, derive

__all__ = [
    "ATTESTATION_OFF",
    "AttestationMode",
    "AttestationTerms",
    "Gate",
    "make_terms",
    "parse_attestation",
]

MAX_EVIDENCE_LIFETIME_S: Final = 600
_MIN_EVIDENCE_LIFETIME_S: Final = 3
_MAX_ROOT_BYTES: Final = 4096


class AttestationMode(StrEnum):
    """Where the evidence of a group comes from."""

    REQUIRED = "required"
    EMULATED = "emulated"
    OFF = "off"


class Gate(StrEnum):
    """Who a policy is for."""

    COMMITTEE = "committee"
    AGGREGATOR = "aggregator"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class AttestationTerms:
    """What the group asks.

    Attributes:
        mode: Where evidence comes from.
        root: The root quotes must lead to; None while ``off``.
        root_der: Certificate of an emulator's root; None unless ``emulated``.
        policies: What is asked of each gated role; empty while ``off``.
        lifetime_s: Longest window of a piece of evidence, 3 … 600 s.
    """

    mode: AttestationMode
    root: TrustRoot | None
    policies: Mapping[Gate, Policy]
    root_der: bytes | None = field(default=None, repr=False)
    lifetime_s: int = MAX_EVIDENCE_LIFETIME_S

    def policy_for(self, gate: Gate) -> Policy | None:
        """Return what is asked of a role, None where nothing is."""
        return self.policies.get(gate)

    @property
    def is_production(self) -> bool:
        """Whether quotes of real platforms are demanded."""
        return self.mode is AttestationMode.REQUIRED

    @property
    def ungated(self) -> tuple[Gate, ...]:
        """Roles of which nothing is asked, in a group that asks something of others."""
        if self.mode is AttestationMode.OFF:
            return ()
        return tuple(gate for gate in Gate if gate not in self.policies)

    def policy_digest(self) -> Digest:
        """Return the digest of all that is asked, for the group id (protocol.md §3)."""
        mode = self.mode.value.encode()
        if self.mode is AttestationMode.OFF:
            return derive("attestation-policy", mode)
        writer = Writer().u32(self.lifetime_s)
        for gate in Gate:
            policy = self.policies.get(gate)
            writer.u8(0 if policy is None else 1)
            writer.fixed(bytes(32) if policy is None else policy.digest(), 32)
        return derive("attestation-policy", mode, writer.take())

    def root_digest(self) -> Digest:
        """Return the digest of the trust root, for the group id."""
        if self.root is None:
            return derive("trust-root", b"none")
        return derive("trust-root", self.root.digest())


ATTESTATION_OFF: Final = AttestationTerms(AttestationMode.OFF, None, MappingProxyType({}))


def parse_attestation(table: Mapping[str, object]) -> AttestationTerms:
    """Read the ``[tdx]`` table of a descriptor.

    Keys: ``mode``; unless it is ``off`` a table for each gated role (keys as in a policy file), and
    optionally ``ungated`` and ``lifetime_s``; with ``emulated`` also ``root``, the emulator's root
    certificate as base64 of its DER.

    Raises:
        ConfigError: When a key is missing, unknown, out of place or wrong.
    """
    known = {"mode", "root", "ungated", "lifetime_s", *Gate}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(f"descriptor: [tdx] has no key {unknown[0]!r}")
    mode = _mode(table.get("mode", AttestationMode.OFF.value))
    if mode is AttestationMode.OFF:
        if set(table) - {"mode"}:
            raise ConfigError("descriptor: [tdx] with mode 'off' has no other key")
        return ATTESTATION_OFF
    ungated = _ungated(table.get("ungated", []))
    spare = [gate for gate in ungated if gate.value in table]
    if spare:
        raise ConfigError(f"descriptor: [tdx.{spare[0]}] is there though the role is ungated")
    policies = {gate: _policy(gate, table.get(gate.value)) for gate in Gate if gate not in ungated}
    return make_terms(
        mode,
        root_der=_root_der(table.get("root")),
        policies=policies,
        lifetime_s=_lifetime(table.get("lifetime_s", MAX_EVIDENCE_LIFETIME_S)),
    )


def make_terms(
    mode: AttestationMode,
    *,
    root_der: bytes | None,
    policies: Mapping[Gate, Policy],
    lifetime_s: int = MAX_EVIDENCE_LIFETIME_S,
) -> AttestationTerms:
    """Return terms that hold together; a role without a policy is ungated.

    Args:
        mode: ``required`` or ``emulated``.
        root_der: Certificate of the emulator's root, with ``emulated`` only.
        policies: What is asked of each gated role.
        lifetime_s: Longest window of a piece of evidence.

    Raises:
        ConfigError: When the committee is not gated, a policy names no MRTD or allows emulated
            quotes where real ones are required, or the root does not fit.
    """
    if Gate.COMMITTEE not in policies:
        raise ConfigError("descriptor: the committee's platforms are always attested")
    emulated = mode is AttestationMode.EMULATED
    checked: dict[Gate, Policy] = {}
    for gate in Gate:
        policy = policies.get(gate)
        if policy is not None:
            _check_policy(gate, policy, mode)
            checked[gate] = replace(policy, allow_emulated=emulated)
    return AttestationTerms(
        mode,
        _root(mode, root_der),
        MappingProxyType(checked),
        root_der,
        _lifetime(lifetime_s),
    )


def _mode(value: object) -> AttestationMode:
    try:
        return AttestationMode(str(value))
    except ValueError:
        modes = ", ".join(repr(mode.value) for mode in AttestationMode)
        raise ConfigError(f"descriptor: tdx.mode is {value!r}, it is one of {modes}") from None


def _root_der(value: object) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 2 * _MAX_ROOT_BYTES:
        raise ConfigError("descriptor: tdx.root is a root certificate as base64")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ConfigError("descriptor: tdx.root is not base64") from error


def _root(mode: AttestationMode, der: bytes | None) -> TrustRoot:
    if mode is AttestationMode.REQUIRED:
        if der is not None:
            raise ConfigError("descriptor: tdx.root is for emulated groups, Intel's is built in")
        return TrustRoot.intel()
    if der is None:
        raise ConfigError("descriptor: an emulated group names its tdx.root")
    try:
        return TrustRoot.emulated(der)
    except PolicyError as error:
        raise ConfigError(f"descriptor: tdx.root: {error}") from error


def _ungated(value: object) -> frozenset[Gate]:
    if not isinstance(value, list):
        raise ConfigError("descriptor: tdx.ungated is a list of roles")
    free = {Gate.AGGREGATOR.value, Gate.CLIENT.value}
    if not all(item in free for item in value):
        raise ConfigError("descriptor: tdx.ungated may name 'aggregator' and 'client' only")
    return frozenset(Gate(item) for item in value)


def _policy(gate: Gate, value: object) -> Policy:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"descriptor: [tdx.{gate}] is missing",
            hint=f"write the policy of the {gate}, or list the role in tdx.ungated",
        )
    try:
        return policy_from_table(value)
    except PolicyError as error:
        raise ConfigError(f"descriptor: [tdx.{gate}]: {error}") from error


def _check_policy(gate: Gate, policy: Policy, mode: AttestationMode) -> None:
    if policy.allow_emulated and mode is AttestationMode.REQUIRED:
        raise ConfigError(f"descriptor: [tdx.{gate}] allows emulated quotes, which 'required' bars")
    if not _names_mrtd(policy):
        raise ConfigError(
            f"descriptor: [tdx.{gate}.require] names no mrtd",
            hint="without one, any program on any up-to-date machine would pass",
        )


def _names_mrtd(policy: Policy) -> bool:
    """Whether every way to pass names the measured program."""
    groups = policy.variants or (policy.baseline,)
    ways = [{*dict(policy.baseline.required), *dict(group.required)} for group in groups]
    return all("mrtd" in way for way in ways)


def _lifetime(value: object) -> int:
    low, high = _MIN_EVIDENCE_LIFETIME_S, MAX_EVIDENCE_LIFETIME_S
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"descriptor: tdx.lifetime_s is a whole number from {low} to {high}")
    return value
