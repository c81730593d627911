"""What a descriptor may ask of platforms, and that what it asks is in the group id."""

from __future__ import annotations

import base64
import time
from dataclasses import replace

import pytest

from tdx.emulator import Emulator
from tdx.policy import Policy
from tests.harness.committee import HarnessCommittee, build_descriptor, make_identity
from zipnet.errors import ConfigError
from zipnet.protocol.attestation import (
    ATTESTATION_OFF,
    AttestationMode,
    AttestationTerms,
    Gate,
    make_terms,
    parse_attestation,
)
from zipnet.protocol.descriptor import parse_descriptor

ROOT = Emulator(now=int(time.time())).root_der
MRTD = "11" * 48
POLICY: dict[str, object] = {"require": {"mrtd": [MRTD]}}
GATED: dict[str, object] = {
    "mode": "required",
    "committee": POLICY,
    "aggregator": POLICY,
    "client": POLICY,
}
EMULATED = GATED | {"mode": "emulated", "root": base64.b64encode(ROOT).decode()}


def without(table: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in table.items() if key not in keys}


def test_every_role_is_gated_unless_it_is_listed_as_ungated() -> None:
    terms = parse_attestation(GATED)
    assert set(terms.policies) == set(Gate)
    assert terms.is_production
    assert terms.root is not None
    assert not terms.root.is_emulated
    fewer = parse_attestation(without(GATED, "client") | {"ungated": ["client"]})
    assert fewer.ungated == (Gate.CLIENT,)
    assert fewer.policy_for(Gate.CLIENT) is None


def test_an_emulated_group_allows_emulated_quotes_under_its_own_root_only() -> None:
    terms = parse_attestation(EMULATED)
    assert terms.root is not None
    assert terms.root.is_emulated
    assert not terms.is_production
    assert all(policy.allow_emulated for policy in terms.policies.values())


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "unknown mode": (GATED | {"mode": "on"}, "tdx.mode"),
    "unknown key": (GATED | {"extra": 1}, "extra"),
    "policies while off": (GATED | {"mode": "off"}, "no other key"),
    "a role left out": (without(GATED, "client"), "tdx.client"),
    "the committee left out": (without(GATED, "committee"), "tdx.committee"),
    "the committee ungated": (
        without(GATED, "committee") | {"ungated": ["committee"]},
        "ungated",
    ),
    "ungated and there": (GATED | {"ungated": ["client"]}, "tdx.client"),
    "ungated is no list": (GATED | {"ungated": "client"}, "ungated"),
    "no mrtd": (GATED | {"client": {}}, "mrtd"),
    "an rtmr alone": (GATED | {"client": {"require": {"rtmr1": [MRTD]}}}, "mrtd"),
    "a variant without mrtd": (
        GATED | {"client": {"variant": [{"mrtd": [MRTD]}, {"rtmr1": [MRTD]}]}},
        "mrtd",
    ),
    "policy with an unknown key": (GATED | {"client": {**POLICY, "x": 1}}, "tdx.client"),
    "policy is no table": (GATED | {"client": [MRTD]}, "tdx.client"),
    "emulated allowed where required": (
        GATED | {"client": {**POLICY, "allow_emulated": True}},
        "emulated",
    ),
    "a root where required": (GATED | {"root": EMULATED["root"]}, "tdx.root"),
    "no root where emulated": (without(EMULATED, "root"), "tdx.root"),
    "a root that is not base64": (EMULATED | {"root": "%%%"}, "tdx.root"),
    "a root that is no certificate": (EMULATED | {"root": "AAAA"}, "tdx.root"),
    "a lifetime too long": (GATED | {"lifetime_s": 601}, "lifetime_s"),
    "a lifetime too short": (GATED | {"lifetime_s": 2}, "lifetime_s"),
    "a lifetime that is a truth": (GATED | {"lifetime_s": True}, "lifetime_s"),
}


@pytest.mark.parametrize("title", WRONG)
def test_what_does_not_hold_together_is_refused_by_name(title: str) -> None:
    table, named = WRONG[title]
    with pytest.raises(ConfigError, match="descriptor:") as error:
        parse_attestation(table)
    assert named in str(error.value)


def test_every_difference_in_what_is_asked_makes_another_group() -> None:
    base = parse_attestation(GATED)
    policy = base.policies[Gate.CLIENT]
    others: list[AttestationTerms] = [
        ATTESTATION_OFF,
        base,
        replace(base, lifetime_s=599),
        parse_attestation(EMULATED),
        parse_attestation(without(GATED, "client") | {"ungated": ["client"]}),
        replace(base, policies={**base.policies, Gate.CLIENT: policy.require_rtmr(1, MRTD)}),
        replace(base, policies={**base.policies, Gate.AGGREGATOR: policy.require_rtmr(1, MRTD)}),
    ]
    digests = {(terms.policy_digest(), terms.root_digest()) for terms in others}
    assert len(digests) == len(others)
    another = Emulator(now=int(time.time())).root_der
    emulated = parse_attestation(EMULATED)
    other_root = make_terms(AttestationMode.EMULATED, root_der=another, policies=emulated.policies)
    assert other_root.policy_digest() == emulated.policy_digest()
    assert other_root.root_digest() != emulated.root_digest()


def test_a_descriptor_carries_its_terms_through_text_and_signature() -> None:
    terms = make_terms(
        AttestationMode.EMULATED,
        root_der=ROOT,
        policies={
            Gate.COMMITTEE: Policy().require_mrtd(MRTD, "22" * 48).require_rtmr(2, MRTD),
            Gate.CLIENT: Policy(max_collateral_age_s=86_400).require_mrtd(MRTD),
        },
        lifetime_s=60,
    )
    plain = HarnessCommittee()
    data = build_descriptor(
        servers=plain.identities,
        aggregators={"root": (make_identity("root"), None)},
        operator=make_identity("operator"),
        attestation=terms,
    )
    parsed = parse_descriptor(data)
    assert parsed.attestation.policy_digest() == terms.policy_digest()
    assert parsed.attestation.root_digest() == terms.root_digest()
    assert parsed.attestation.ungated == (Gate.AGGREGATOR,)
    assert parsed.group != plain.descriptor.group
