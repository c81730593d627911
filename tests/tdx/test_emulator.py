"""The emulator: real structures both verifiers accept, and nobody can take for Intel's."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from tdx.emulator import Emulator, PckValues, QeFields, QuoteFields, TdFields, make_bundle
from tdx.emulator.authority import issue
from tdx.errors import Check, QuoteError
from tdx.policy import Policy
from tdx.quote import BodyType, parse_quote
from tdx.trust import EMULATED_ORGANIZATION, EMULATED_QE_MRSIGNER, TrustRoot
from tdx.verify import Marks, PlatformRegister, RollbackMemory, verify
from tests.tdx.forged import (
    NOW,
    POLICY,
    REPORT_DATA,
    emulator,
    honest_quote,
    judge,
    oracle,
    oracle_status,
)


@pytest.mark.requirement("D4")
@pytest.mark.parametrize("version", [4, 5])
def test_honest_quotes_pass_both_verifiers_and_are_marked(version: int) -> None:
    one = emulator()
    quote = honest_quote(version)
    verdict = judge(quote, report_data=REPORT_DATA)
    assert verdict.assessment.emulated
    assert verdict.assessment.status == "UpToDate"
    assert verdict.root == one.trust_root
    assert verdict.policy_digest == POLICY.digest()
    assert verdict.quote_identity == parse_quote(quote).identity
    assert oracle_status(quote, one.bundle(), one.root_der) == "UpToDate"
    assert parse_quote(quote).header.user_data.startswith(b"EMULATED")


@pytest.mark.parametrize("version", [4, 5])
def test_emulated_quotes_fail_under_intels_root_in_both_verifiers(version: int) -> None:
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(version), root=TrustRoot.intel())
    assert caught.value.check is Check.ROOT_PIN
    module = oracle()
    collateral = module.QuoteCollateralV3.from_json(emulator().bundle().to_json())
    with pytest.raises(ValueError, match=r".+"):
        module.verify(honest_quote(version), collateral, NOW)


def test_emulated_quotes_fail_where_the_policy_does_not_ask_for_them() -> None:
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), policy=Policy())
    assert caught.value.check is Check.EMULATED_MARKER


def test_two_emulators_do_not_trust_each_other() -> None:
    other = Emulator(now=NOW)
    assert other.trust_root.digest() != emulator().trust_root.digest()
    assert other.trust_root.digest() != TrustRoot.intel().digest()
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), root=other.trust_root)
    assert caught.value.check is Check.ROOT_PIN


UNMARKED_FMSPC = bytes.fromhex("00806f050000")
UNMARKED_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed03") * 2


@pytest.mark.parametrize("marker", ["certificates", "header", "enclave", "platform", "none"])
def test_each_marker_alone_is_refused_under_a_root_that_claims_to_be_intels(
    marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pin is moved to the emulator's root while the root still calls itself Intel's: what would
    # be left to notice if the pin itself were wrong. Every mark but one is taken off.
    values = PckValues() if marker == "platform" else PckValues(fmspc=UNMARKED_FMSPC)
    signer = EMULATED_QE_MRSIGNER if marker == "enclave" else UNMARKED_SIGNER
    fields = QuoteFields(
        user_data=b"EMULATED" if marker == "header" else b"", qe=QeFields(mrsigner=signer)
    )
    one = Emulator(now=NOW, values=values)
    recipe = one.recipe()
    bundle = make_bundle(
        replace(
            recipe,
            tcb_info={**recipe.tcb_info, "fmspc": values.fmspc.hex()},
            qe_identity={**recipe.qe_identity, "mrsigner": signer.hex()},
        )
    )
    root = TrustRoot.intel()
    object.__setattr__(root, "certificate_sha256", sha256(one.root_der).digest())
    if marker != "certificates":
        monkeypatch.setattr(TrustRoot, "organization", EMULATED_ORGANIZATION)
    if marker == "none":
        assert verify(one.make(fields), bundle, root=root, now=NOW).assessment.status == "UpToDate"
        return
    with pytest.raises(QuoteError) as caught:
        verify(one.make(fields), bundle, root=root, now=NOW)
    assert caught.value.check is Check.EMULATED_MARKER


def test_td15ex_passes_only_a_policy_that_opts_in() -> None:
    quote = emulator().make(QuoteFields(version=5, kind=BodyType.TD15EX))
    verdict = judge(quote, policy=replace(POLICY, allow_td15ex=True))
    assert verdict.report.ex is not None


def test_padding_and_empty_auth_data_change_nothing() -> None:
    assert judge(emulator().make(QuoteFields(padding=bytes(500)))).assessment.emulated
    assert judge(emulator().make(QuoteFields(auth_data=b""))).assessment.emulated


def test_a_renewed_ca_certificate_over_the_same_key_may_head_the_crl_chain() -> None:
    one = emulator()
    renewed = issue(one.hierarchy.pck_ca.spec, one.hierarchy.root, one.hierarchy.pck_ca.key)
    recipe = replace(one.recipe(), pck_crl_chain=(renewed, one.hierarchy.root))
    assert judge(honest_quote(), make_bundle(recipe)).assessment.emulated


def test_advisories_and_dates_come_from_every_matched_level() -> None:
    other = emulator().another_platform(PckValues(component_svns=(1,) * 16))
    fields = QuoteFields(td=TdFields(tee_tcb_svn=bytes([3, 1, *([2] * 14)])), qe=QeFields(isvsvn=3))
    verdict = judge(other.make(fields), policy=POLICY.accept("OutOfDate"))
    assert verdict.assessment.advisories == (
        "INTEL-SA-EMULATED-1",
        "INTEL-SA-EMULATED-2",
        "INTEL-SA-EMULATED-3",
    )
    assert verdict.assessment.tcb_date < judge(honest_quote()).assessment.tcb_date


def test_older_collateral_is_refused_once_newer_was_seen() -> None:
    verdict = judge(honest_quote())
    fmspc = verdict.assessment.fmspc
    memory = RollbackMemory().advanced(verdict)
    assert memory.seen == {fmspc: Marks(18, 18, 1, 1)}
    one = emulator()
    arguments = {"root": one.trust_root, "now": NOW, "policy": POLICY}
    verify(honest_quote(), one.bundle(), seen=memory, **arguments)  # type: ignore[arg-type]
    for marks in (Marks(19, 1, 1, 1), Marks(1, 19, 1, 1), Marks(1, 1, 2, 1), Marks(1, 1, 1, 2)):
        with pytest.raises(QuoteError) as caught:
            verify(
                honest_quote(),
                one.bundle(),
                seen=RollbackMemory({fmspc: marks}),
                **arguments,  # type: ignore[arg-type]
            )
        assert caught.value.check is Check.ROLLBACK
        assert RollbackMemory({fmspc: marks}).advanced(verdict).seen[fmspc] == Marks(
            max(18, marks.tcb_info),
            max(18, marks.qe_identity),
            marks.root_crl,
            marks.pck_crl,
        )
    elsewhere = RollbackMemory({b"other!": Marks(99, 99, 99, 99)})
    verify(honest_quote(), one.bundle(), seen=elsewhere, **arguments)  # type: ignore[arg-type]


def test_a_machine_holds_one_identity() -> None:
    first = judge(honest_quote())
    sibling = emulator().another_platform(PckValues(ppid=b"EMULATED PPID 02"))
    stranger = emulator().another_platform(
        PckValues(ppid=b"EMULATED PPID 03", platform_instance_id=b"EMULATED PIID 03")
    )
    register = PlatformRegister().admit(first, b"alice")
    assert register.admit(first, b"alice") == register
    for verdict in (first, judge(sibling.quote(REPORT_DATA))):
        with pytest.raises(QuoteError) as caught:
            register.admit(verdict, b"bob")
        assert caught.value.check is Check.PLATFORM_REUSED
    register = register.admit(judge(stranger.quote(REPORT_DATA)), b"bob")
    assert register.released(b"alice").admit(first, b"carol").holders[b"EMULATED PPID 01"]


def test_secrets_of_a_platform_stay_out_of_reprs() -> None:
    text = repr(judge(honest_quote()))
    assert "PPID" not in text
    assert "PIID" not in text


def test_every_byte_of_the_pin_counts() -> None:
    root = emulator().trust_root
    for place in range(32):
        wrong = bytearray(root.certificate_sha256)
        wrong[place] ^= 1
        with pytest.raises(QuoteError) as caught:
            judge(honest_quote(), root=replace(root, certificate_sha256=bytes(wrong)))
        assert caught.value.check is Check.ROOT_PIN


def test_the_same_certificate_as_another_kind_of_root_has_another_digest() -> None:
    root = emulator().trust_root
    assert root.digest() != replace(root, kind="intel").digest()
