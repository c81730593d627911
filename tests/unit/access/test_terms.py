"""Which requests are behind which gate, and what opens it (row L2)."""

from __future__ import annotations

import pytest

from zipnet.access.capability import Capability, CapabilityRole, TokenId
from zipnet.access.terms import GATED, NO_TERMS, AccessTerms, require_capability
from zipnet.errors import AdmissionError, ConfigError
from zipnet.protocol.ids import GroupId
from zipnet.wire.messages import Kind

NOW = 1_800_000_000.0
PUBLISH, AGGREGATE, READ = (
    CapabilityRole.PUBLISH,
    CapabilityRole.AGGREGATE,
    CapabilityRole.READ,
)
ALL = AccessTerms((bytes(32),), frozenset({PUBLISH, AGGREGATE, READ}))


def holding(*roles: CapabilityRole) -> Capability:
    return Capability(
        group=GroupId(bytes(32)),
        roles=frozenset(roles),
        issued_s=int(NOW) - 10,
        expires_s=int(NOW) + 10,
        peer=None,
        ids=(TokenId(bytes(32)),),
    )


def outcome(
    kind: int, capability: Capability | None, terms: AccessTerms = ALL, now_s: float = NOW
) -> str:
    try:
        require_capability(terms, capability, kind, now_s=now_s)
    except AdmissionError as error:
        return error.code
    return "let in"


@pytest.mark.requirement("L2")
def test_each_request_behind_a_gate_wants_its_role_and_no_other() -> None:
    for kind in GATED:
        assert outcome(kind, None) == "capability_missing"
        assert outcome(kind, holding(CapabilityRole.ADMIN_WRITE)) == "capability_role"
        assert outcome(kind, holding(*ALL.asked), now_s=NOW + 10) == "capability_expired"
        assert outcome(kind, holding(*ALL.asked)) == "let in"
    assert outcome(Kind.REGISTER, holding(READ, AGGREGATE)) == "capability_role"
    assert outcome(Kind.SUBMIT_ENVELOPE, holding(READ, AGGREGATE)) == "capability_role"
    assert outcome(Kind.SUBMIT_AGGREGATE, holding(READ, PUBLISH)) == "capability_role"
    for role in (PUBLISH, AGGREGATE, READ):  # whoever takes part reads
        assert outcome(Kind.SUBSCRIBE, holding(role)) == "let in"
        assert outcome(Kind.GET_RECORDS, holding(role)) == "let in"


@pytest.mark.requirement("L2")
def test_only_what_is_asked_for_is_gated() -> None:
    terms = AccessTerms((bytes(32),), frozenset({PUBLISH}))
    assert outcome(Kind.REGISTER, None, terms) == "capability_missing"
    assert outcome(Kind.SUBSCRIBE, None, terms) == "let in"
    assert outcome(Kind.SUBMIT_AGGREGATE, None, terms) == "let in"
    for kind in Kind:
        assert outcome(kind, None, NO_TERMS) == "let in"
        if kind not in GATED:
            assert outcome(kind, None) == "let in"


@pytest.mark.requirement("L2")
def test_terms_nobody_could_meet_are_refused() -> None:
    for issuers, asked in (
        ((), {PUBLISH}),
        ((bytes(32), bytes(32)), {PUBLISH}),
        (tuple(bytes([i]) * 32 for i in range(9)), set[CapabilityRole]()),
        ((bytes(32),), {CapabilityRole.ADMIN_WRITE}),
    ):
        with pytest.raises(ConfigError):
            AccessTerms(issuers, frozenset(asked))
