"""Two opinions: both accept the same status, or nothing is accepted."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tdx.binding import Ticket, verify_bound
from tdx.collateral import Bundle
from tdx.errors import Check, PolicyError, QuoteError
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import Verdict, verify_twice
from tests.tdx import vectors
from tests.tdx.forged import NOW, POLICY, REPORT_DATA, emulator, honest_quote, oracle
from tests.tdx.test_cli import files, run
from tests.tdx.test_vectors import PAIRS

TICKET = Ticket(
    application="zipnet",
    network_id=bytes(32),
    role="server",
    spki=b"a key",
    protocol_keys=(b"another",),
    not_before=NOW - 10,
    not_after=NOW + 590,
    boot_id=bytes(32),
)


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


class PanicException(BaseException):
    """What a panic of the wheel's Rust raises; no Exception."""


def panic(*_: object) -> object:
    raise PanicException("index out of bounds\nstack")


def interrupted(*_: object) -> object:
    raise KeyboardInterrupt


def other_status(*_: object) -> SimpleNamespace:
    return SimpleNamespace(status="OutOfDate")


DISSENT = {
    "refuses": SimpleNamespace(QuoteCollateralV3=Refusing),
    "finds another status": SimpleNamespace(
        QuoteCollateralV3=SimpleNamespace(from_json=str), verify_with_root_ca=other_status
    ),
    "panics": SimpleNamespace(
        QuoteCollateralV3=SimpleNamespace(from_json=str), verify_with_root_ca=panic
    ),
    "lacks the function": SimpleNamespace(QuoteCollateralV3=SimpleNamespace(from_json=str)),
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


def test_an_interruption_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = SimpleNamespace(QuoteCollateralV3=SimpleNamespace(from_json=interrupted))
    monkeypatch.setitem(sys.modules, "dcap_qvl", wheel)
    one = emulator()
    with pytest.raises(KeyboardInterrupt):
        verify_twice(honest_quote(), one.bundle(), root=one.trust_root, now=NOW, policy=POLICY)


@pytest.mark.parametrize("missing", [False, True])
def test_a_bond_and_the_command_can_demand_both(
    missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle()
    one, ticket = emulator(), TICKET
    quote = one.quote(ticket.report_data())
    pair = PAIRS["v4 up to date"]
    quote_file, collateral = files(pair)
    more = ("--collateral", collateral, "--at", pair.at, "--second-opinion")

    def bond(report: Ticket, *, second: bool) -> Verdict:
        return verify_bound(
            quote,
            one.bundle(),
            report,
            root=one.trust_root,
            now=NOW,
            policy=POLICY,
            second_opinion=second,
        )

    if not missing:
        assert bond(ticket, second=True) == bond(ticket, second=False)
        assert run("verify", quote_file, *more).returncode == 0
        return
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    with pytest.raises(PolicyError, match="not installed"):
        bond(ticket, second=True)
    done = run("verify", quote_file, *more)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"second-opinion" in done.stderr
