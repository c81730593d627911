"""Two opinions: both accept the same status, or nothing is accepted."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tdx.collateral import Bundle
from tdx.errors import Check, PolicyError, QuoteError
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import verify_twice
from tests.tdx import vectors
from tests.tdx.forged import NOW, POLICY, REPORT_DATA, emulator, honest_quote, oracle
from tests.tdx.test_vectors import PAIRS


@pytest.mark.parametrize("version", [4, 5])
def test_two_verifiers_accept_an_honest_quote(version: int) -> None:
    oracle()
    one = emulator()
    verdict = verify_twice(
        honest_quote(version),
        one.bundle(),
        root=one.trust_root,
        now=NOW,
        policy=POLICY,
        report_data=REPORT_DATA,
    )
    assert verdict.report_data_checked


def test_two_verifiers_accept_a_real_quote_and_share_its_status() -> None:
    oracle()
    pair = PAIRS["GCP out of date"]
    verdict = verify_twice(
        vectors.quote(pair.quote),
        Bundle.from_json(vectors.collateral(pair.collateral)),
        root=TrustRoot.intel(),
        now=pair.now,
        policy=Policy().accept("OutOfDate"),
    )
    assert verdict.assessment.status == "OutOfDate"


class Refusing:
    @staticmethod
    def from_json(_: str) -> object:
        raise ValueError("no\nstack")


def other_status(*_: object) -> SimpleNamespace:
    return SimpleNamespace(status="OutOfDate")


DISSENT = {
    "refuses": SimpleNamespace(QuoteCollateralV3=Refusing),
    "finds another status": SimpleNamespace(
        QuoteCollateralV3=SimpleNamespace(from_json=str), verify_with_root_ca=other_status
    ),
}


@pytest.mark.parametrize("title", DISSENT)
def test_one_dissent_is_enough(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No real input makes the wheel stricter than this package; its dissent has to be played.
    monkeypatch.setitem(sys.modules, "dcap_qvl", DISSENT[title])
    one = emulator()
    with pytest.raises(QuoteError) as caught:
        verify_twice(honest_quote(), one.bundle(), root=one.trust_root, now=NOW, policy=POLICY)
    assert caught.value.check is Check.SECOND_VERIFIER
    assert "stack" not in str(caught.value)


def test_without_the_wheel_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    one = emulator()
    with pytest.raises(PolicyError, match="not installed"):
        verify_twice(honest_quote(), one.bundle(), root=one.trust_root, now=NOW, policy=POLICY)
