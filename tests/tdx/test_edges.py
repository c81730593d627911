"""Verification at its edges: the last second of a validity, the last byte of a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from tdx.collateral import MAX_BUNDLE_BYTES, Bundle, expiries
from tdx.emulator import BundleRecipe, QuoteFields, make_bundle
from tdx.emulator.authority import Hierarchy, issue
from tdx.emulator.forgeries import forgeries
from tdx.emulator.quotes import make_quote
from tdx.errors import Check, QuoteError
from tdx.trust import TrustRoot
from tdx.verify import verify
from tests.tdx.forged import NOW, POLICY, emulator, honest_quote, judge

if TYPE_CHECKING:
    from tdx.policy import Policy

DAY_S = 86_400
ROLES = ("root", "pck_ca", "pck", "tcb_signer")


def iso(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def lasting(start: int, end: int) -> Hierarchy:
    one = emulator().hierarchy
    spec = {
        role: replace(getattr(one, role).spec, not_before=start, not_after=end) for role in ROLES
    }
    root = issue(spec["root"], None)
    pck_ca = issue(spec["pck_ca"], root)
    return Hierarchy(root, pck_ca, issue(spec["pck"], pck_ca), issue(spec["tcb_signer"], root))


@pytest.mark.parametrize(("before", "after"), [(0, DAY_S), (DAY_S, 0)])
def test_both_ends_of_a_certificates_validity_are_inside(before: int, after: int) -> None:
    one = lasting(NOW - before, NOW + after)
    verify(
        emulator_under(one),
        make_bundle(emulator().recipe(one)),
        root=TrustRoot.emulated(one.root.der),
        now=NOW,
        policy=POLICY,
    )


def emulator_under(one: Hierarchy) -> bytes:
    chain = "".join(part.pem for part in (one.pck, one.pck_ca, one.root)).encode()
    return make_quote(QuoteFields(chain=chain), (one.pck, one.pck_ca, one.root))


def test_an_unknown_extension_that_is_not_critical_changes_nothing() -> None:
    one = emulator().hierarchy
    leaf = issue(replace(one.pck.spec, other_oid="1.3.6.1.4.1.99999.2"), one.pck_ca)
    judge(emulator_under(replace(one, pck=leaf)))


Edit = Callable[[BundleRecipe], BundleRecipe]
EDGES: dict[str, Edit] = {
    "root CRL begins": lambda r: replace(r, root_crl=replace(r.root_crl, issued_at=NOW)),
    "root CRL ends": lambda r: replace(r, root_crl=replace(r.root_crl, next_update=NOW)),
    "PCK CRL begins": lambda r: replace(r, pck_crl=replace(r.pck_crl, issued_at=NOW)),
    "PCK CRL ends": lambda r: replace(r, pck_crl=replace(r.pck_crl, next_update=NOW)),
    "TCB Info begins": lambda r: replace(r, tcb_info={**r.tcb_info, "issueDate": iso(NOW)}),
    "TCB Info ends": lambda r: replace(r, tcb_info={**r.tcb_info, "nextUpdate": iso(NOW)}),
    "QE Identity begins": lambda r: replace(
        r, qe_identity={**r.qe_identity, "issueDate": iso(NOW)}
    ),
    "QE Identity ends": lambda r: replace(r, qe_identity={**r.qe_identity, "nextUpdate": iso(NOW)}),
}


@pytest.mark.parametrize("title", EDGES)
def test_both_ends_of_a_lists_or_documents_validity_are_inside(title: str) -> None:
    bundle = make_bundle(EDGES[title](emulator().recipe()))
    verdict = judge(honest_quote(), bundle)
    assert (verdict.expires_at == NOW) == title.endswith("ends")


# The weakest part counts: which part is made the oldest, the lowest or the first to lapse.
OLDEST: dict[str, Edit] = {
    "PCK CRL": lambda r: replace(r, pck_crl=replace(r.pck_crl, issued_at=NOW - 9 * DAY_S)),
    "TCB Info": lambda r: replace(r, tcb_info={**r.tcb_info, "issueDate": iso(NOW - 9 * DAY_S)}),
    "QE Identity": lambda r: replace(
        r, qe_identity={**r.qe_identity, "issueDate": iso(NOW - 9 * DAY_S)}
    ),
}
LOWEST: dict[str, Edit] = {
    "TCB Info": lambda r: replace(r, tcb_info={**r.tcb_info, "tcbEvaluationDataNumber": 7}),
    "QE Identity": lambda r: replace(
        r, qe_identity={**r.qe_identity, "tcbEvaluationDataNumber": 7}
    ),
}


@pytest.mark.parametrize("title", OLDEST)
def test_the_oldest_part_is_the_collaterals_age(title: str) -> None:
    bundle = make_bundle(OLDEST[title](emulator().recipe()))
    assert judge(honest_quote(), bundle).assessment.issued_at == NOW - 9 * DAY_S


@pytest.mark.parametrize("title", LOWEST)
def test_the_lower_evaluation_number_counts(title: str) -> None:
    bundle = make_bundle(LOWEST[title](emulator().recipe()))
    assert judge(honest_quote(), bundle).assessment.evaluation_number == 7


@pytest.mark.parametrize("role", ["pck", "pck_ca", "tcb_signer"])
def test_a_certificate_that_lapses_first_is_when_the_verdict_lapses(role: str) -> None:
    one = emulator().hierarchy
    soon = NOW + DAY_S
    parts = {name: getattr(one, name) for name in ROLES}
    issuer = one.pck_ca if role == "pck" else one.root
    parts[role] = issue(replace(parts[role].spec, not_after=soon), issuer, parts[role].key)
    short = Hierarchy(**parts)
    verdict = judge(emulator_under(short), make_bundle(emulator().recipe(short)))
    assert verdict.expires_at == soon


def test_a_megabyte_of_collateral_passes_and_a_byte_more_does_not() -> None:
    bundle = emulator().bundle()
    parts = [getattr(bundle, name) for name in Bundle.__slots__ if not name.endswith("_signature")]
    room = MAX_BUNDLE_BYTES - sum(map(len, parts))
    for more, check in ((room, None), (room + 1, Check.SIZE)):
        padded = replace(bundle, pck_crl_issuer_chain=bundle.pck_crl_issuer_chain + "\n" * more)
        if check is None:
            judge(honest_quote(), padded)
            continue
        with pytest.raises(QuoteError) as caught:
            judge(honest_quote(), padded)
        assert caught.value.check is check


def test_a_bundle_file_of_a_megabyte_parses_and_one_of_a_byte_more_does_not() -> None:
    text = emulator().bundle().to_json()
    whole = text + " " * (MAX_BUNDLE_BYTES - len(text))
    assert Bundle.from_json(whole) == emulator().bundle()
    with pytest.raises(QuoteError) as caught:
        Bundle.from_json(whole + " ")
    assert caught.value.check is Check.SIZE


def test_a_list_without_end_has_no_expiry() -> None:
    bundle = forgeries(emulator())["RevocationFormMutations.list_without_end"]().bundle
    with pytest.raises(QuoteError) as caught:
        expiries(bundle)
    assert caught.value.check is Check.COLLATERAL_FORMAT


# Every rule of a policy that judges more than the quote's body, through the whole verification.
POLICIES: dict[str, tuple[Policy, Check]] = {
    "no emulated quotes": (replace(POLICY, allow_emulated=False), Check.EMULATED_MARKER),
    "status": (replace(POLICY, accept_statuses=frozenset()), Check.TCB_STATUS),
    "evaluation number": (replace(POLICY, min_evaluation_number=19), Check.EVALUATION_NUMBER),
    "TCB date": (replace(POLICY, min_tcb_date=NOW), Check.TCB_DATE),
    "age": (replace(POLICY, max_collateral_age_s=1), Check.COLLATERAL_AGE),
    "platform": (replace(POLICY, platforms=frozenset({bytes(32)})), Check.PLATFORM),
    "mrtd": (POLICY.require_mrtd(b"\x77" * 48), Check.MRTD),
}


@pytest.mark.parametrize("title", POLICIES)
def test_a_verification_applies_its_policy(title: str) -> None:
    policy, check = POLICIES[title]
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), policy=policy)
    assert (caught.value.check, caught.value.status) == (check, "UpToDate")


def test_a_listed_platform_passes() -> None:
    listed = frozenset({sha256(b"EMULATED PPID 01").digest()})
    verdict = judge(honest_quote(), policy=replace(POLICY, platforms=listed))
    assert verdict.policy_digest == replace(POLICY, platforms=listed).digest()
