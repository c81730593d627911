"""A client's own list of what the committee may run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tdx.policy import Measurements, Policy
from tests.harness.attested import group_terms
from tests.harness.committee import build_descriptor, make_identity
from zipnet import TrustPolicy
from zipnet.errors import ConfigError
from zipnet.protocol.attestation import ATTESTATION_OFF
from zipnet.protocol.descriptor import parse_descriptor, trust_descriptor

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor

ONE, TWO, THREE = (bytes([n]) * 48 for n in (1, 2, 3))


def descriptor(policy: Policy | None) -> TrustedDescriptor:
    data = build_descriptor(
        servers=[make_identity(f"s{index}") for index in range(3)],
        aggregators={"root": (make_identity("root"), None)},
        operator=make_identity("operator"),
        attestation=ATTESTATION_OFF if policy is None else group_terms(committee=policy),
    )
    return trust_descriptor(parse_descriptor(data), now=datetime.now(UTC))


@pytest.mark.parametrize("trusted", [{ONE, TWO}, {ONE, TWO, THREE}])
def test_a_committee_that_can_run_nothing_else_is_trusted(trusted: set[bytes]) -> None:
    bound = TrustPolicy(committee_mrtds=frozenset(trusted)).bind(
        descriptor(Policy().require_mrtd(ONE, TWO))
    )
    assert bound.required == {}


def test_one_image_more_than_named_is_refused_and_told() -> None:
    with pytest.raises(ConfigError, match=TWO.hex()[:16]):
        TrustPolicy(committee_mrtds=frozenset({ONE})).bind(
            descriptor(Policy().require_mrtd(ONE, TWO))
        )


def test_a_descriptor_that_asks_for_no_measurement_is_refused() -> None:
    with pytest.raises(ConfigError, match="asks for none"):
        TrustPolicy(committee_mrtds=frozenset({ONE})).bind(descriptor(None))


def test_what_is_no_measurement_is_refused() -> None:
    with pytest.raises(ConfigError, match="48 bytes"):
        TrustPolicy(committee_mrtds=frozenset({b"short"})).bind(
            descriptor(Policy().require_mrtd(ONE))
        )


@pytest.mark.parametrize(
    ("policy", "accepted"),
    [
        (Policy(), None),
        (Policy().require_mrtd(ONE, TWO), {ONE, TWO}),
        (Policy().allow_variant(Measurements("v").require_mrtd(THREE)), {THREE}),
        (Policy().allow_variant(Measurements("v").require_rtmr(1, THREE)), None),
        (
            Policy()
            .require_mrtd(ONE, TWO)
            .allow_variant(Measurements("v").require_mrtd(TWO, THREE)),
            {TWO},
        ),
        (
            Policy()
            .require_mrtd(ONE)
            .allow_variant(Measurements("v").require_mrtd(TWO))
            .allow_variant(Measurements("w").require_rtmr(1, THREE)),
            {ONE},
        ),
    ],
)
def test_what_a_policy_can_accept(policy: Policy, accepted: set[bytes] | None) -> None:
    assert policy.accepted_mrtds() == accepted
