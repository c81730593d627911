"""Every named forgery is refused by the check meant for it; where we are stricter, we say why."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

import tdx.errors
from tdx.collateral import TcbStatus, converge
from tdx.emulator import BundleRecipe, QeFields, QuoteFields, make_bundle
from tdx.emulator.documents import isv_level, platform_level
from tdx.emulator.forgeries import FORGERIES, Forgery, forgeries
from tdx.errors import Check, QuoteError
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import Memo
from tests.tdx.forged import (
    NOW,
    POLICY,
    emulator,
    honest_quote,
    judge,
    oracle,
    oracle_status,
)

MEMO = Memo()

# What the dcap-qvl wheel (0.7) accepts under the same root, and why this verifier does not.
STRICTER = {
    "StructureMutations.oversized": "a size cap comes before anything else",
    "StructureMutations.trailing_junk": "unsigned bytes after a quote are room for an attacker",
    "StructureMutations.outer_type": "the outer certification type says what is parsed",
    "BodyMutations.xfam_without_sse": "XFAM is this policy's; the wheel leaves it to its caller",
    "BodyMutations.xfam_reserved": "as above",
    "BodyMutations.td15ex": "migration fields need a policy that understands them",
    "BodyMutations.report_data": "the wheel leaves report data to its caller",
    "ChainMutations.short_chain": "three certificates, no search for paths",
    "ChainMutations.long_chain": "as above",
    "ChainMutations.leaf_may_issue": "a PCK certificate must not be able to issue",
    "ChainMutations.leaf_may_not_sign": "a certificate is used for what it is meant for",
    "SignerMutations.signer_may_not_sign": "as above",
    "SignerMutations.signer_may_issue": "a TCB signer must not be able to issue",
    "ChainMutations.leaf_with_broken_extension": "an extension with two readings",
    "AuthorityMutations.foreign_name": "roles are names under the root",
    "AuthorityMutations.foreign_organization": "as above",
    "AuthorityMutations.longer_path": "Intel's PCK CA has path length 0",
    "SignerMutations.tcb_info_by_pck_chain": "role separation: one stolen PCK key must not sign",
    "SignerMutations.qe_identity_by_pck_chain": "as above",
    "AuthorityMutations.may_only_list": "a CA that issued must be allowed to",
    "SignerMutations.signer_with_extension": "a TCB signer is no platform",
    "RevocationListMutations.root_list_from_the_future": "both ends of a validity count",
    "RevocationListMutations.pck_list_from_the_future": "as above",
    "RevocationListMutations.issuer_certificate_forged": "every certificate shown is verified",
    "RevocationMutations.renewed_authority": "every certificate shown may be revoked",
    "RevocationFormMutations.list_under_a_namesake": "the list must be that of the quote's own CA",
    "RevocationFormMutations.list_under_another_name": "as above",
    "RevocationFormMutations.list_under_a_sister": "the list must be that of the quote's own CA",
    "CertificateFormMutations.leaf_without_constraints": "a certificate says what it is for",
    "CertificateFormMutations.leaf_without_usage": "as above",
    "CertificateFormMutations.leaf_with_two_names": "a role is one name, not one of several",
    "CertificateFormMutations.leaf_with_serial_zero": "revocation goes by serial number",
    **dict.fromkeys(
        (
            "RootMutations.expired",
            "RootMutations.not_yet_valid",
            "RootMutations.foreign_name",
            "RootMutations.not_an_authority",
            "RootMutations.longer_path",
            "RootMutations.may_not_issue",
            "RootMutations.with_extension",
        ),
        "the wheel takes its root by key and does not read what it says of itself",
    ),
    "DocumentMutations.tcb_info_of_another_type": "another type compares SVNs in another way",
    "PlatformMutations.pceid_of_another_platform": "TCB Info is for one FMSPC and one PCEID",
}
# The wheel returns these with their status and leaves the refusal to its caller.
STATUS_ONLY = {
    "EnclaveMutations.svn_out_of_date",
    "PlatformMutations.out_of_date",
    "PlatformMutations.configuration_needed",
    "PlatformMutations.software_hardening_needed",
    "ModuleMutations.out_of_date",
    "ModuleMutations.relaunch_advised",
}


def made(name: str) -> Forgery:
    return forgeries(emulator())[name]()


def refused(forgery: Forgery, memo: Memo | None = None) -> tuple[Check, str | None]:
    with pytest.raises(QuoteError) as caught:
        judge(
            forgery.quote,
            forgery.bundle,
            root=forgery.root,
            now=forgery.now,
            report_data=forgery.report_data,
            memo=memo,
        )
    return caught.value.check, caught.value.status


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_is_refused_by_its_check(name: str) -> None:
    forgery = made(name)
    assert refused(forgery) == (forgery.check, forgery.status)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_memo_of_honest_quotes_and_of_the_forgery_itself_helps_no_forgery(name: str) -> None:
    forgery = made(name)
    for _ in range(2):
        judge(honest_quote(), memo=MEMO)
        assert refused(forgery, MEMO) == (forgery.check, forgery.status)


@pytest.mark.filterwarnings("ignore")
def test_serial_zero_is_refused_where_the_library_only_warns() -> None:
    forgery = made("CertificateFormMutations.leaf_with_serial_zero")
    with pytest.raises(QuoteError, match="serial number is positive"):
        judge(forgery.quote, forgery.bundle)


@pytest.mark.parametrize("name", FORGERIES)
def test_the_second_verifier_differs_only_where_we_are_stricter(name: str) -> None:
    forgery = made(name)
    status = oracle_status(forgery.quote, forgery.bundle, forgery.root_der, forgery.now)
    if name in STRICTER:
        assert status == "UpToDate", "it has become as strict: take it off the list"
    elif name in STATUS_ONLY:
        assert status == forgery.status
    else:
        assert status is None


@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_passes_under_intels_root(name: str) -> None:
    forgery = made(name)
    with pytest.raises(QuoteError):
        judge(forgery.quote, forgery.bundle, root=TrustRoot.intel(), policy=POLICY)
    module = oracle()
    collateral = module.QuoteCollateralV3.from_json(forgery.bundle.to_json())
    with pytest.raises(ValueError, match=r".+"):
        module.verify(forgery.quote, collateral, forgery.now)


def test_there_are_at_least_sixty_and_each_has_one_name() -> None:
    assert len(FORGERIES) >= 60
    assert len(set(FORGERIES)) == len(FORGERIES)
    assert set(STRICTER) | STATUS_ONLY <= set(FORGERIES)


ALL_ACCEPTED = Policy(
    allow_emulated=True,
    accept_statuses=frozenset(TcbStatus) - {TcbStatus.REVOKED},
)
PARTS = (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)
PLATFORM = tuple(status for status in TcbStatus if not status.startswith("TDRelaunch"))


def leveled(platform: str, module: str, enclave: str) -> BundleRecipe:
    recipe = emulator().recipe()
    identity = {
        "id": "TDX_01",
        "mrsigner": "00" * 48,
        "attributes": "00" * 8,
        "attributesMask": "FF" * 8,
        "tcbLevels": [isv_level(2, module)],
    }
    return BundleRecipe(
        hierarchy=recipe.hierarchy,
        root_crl=recipe.root_crl,
        pck_crl=recipe.pck_crl,
        tcb_info={
            **recipe.tcb_info,
            "tdxModuleIdentities": [identity],
            "tcbLevels": [platform_level(platform)],
        },
        qe_identity={**recipe.qe_identity, "tcbLevels": [isv_level(2, enclave)]},
        tcb_info_chain=recipe.tcb_info_chain,
        qe_identity_chain=recipe.qe_identity_chain,
        pck_crl_chain=recipe.pck_crl_chain,
    )


@pytest.mark.parametrize("platform", PLATFORM)
def test_every_pair_of_statuses_converges_as_in_the_second_verifier(platform: TcbStatus) -> None:
    one = emulator()
    quote = one.make(QuoteFields(qe=QeFields(isvsvn=2)))
    for module, enclave in itertools.product(PARTS, PARTS):
        bundle = make_bundle(leveled(platform, module, enclave))
        expected = converge(platform, [module, enclave])
        theirs = oracle_status(quote, bundle, one.root_der)
        if expected is TcbStatus.REVOKED:
            with pytest.raises(QuoteError) as caught:
                judge(quote, bundle, policy=ALL_ACCEPTED)
            assert (caught.value.check, caught.value.status) == (Check.TCB_STATUS, expected)
            assert theirs is None
        else:
            ours = judge(quote, bundle, policy=ALL_ACCEPTED).assessment.status
            assert ours == expected == theirs, (platform, module, enclave)


def test_every_check_is_carried_by_a_test() -> None:
    """Each name of the closed list appears in a forgery or in a test of this folder."""
    here = Path(__file__).parent
    folders = (here, Path(tdx.errors.__file__).parent / "emulator" / "forgeries")
    used = {
        node.attr
        for folder in folders
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Check"
    }
    assert {check.name for check in Check} <= used


def test_a_quote_is_judged_at_the_time_the_caller_names() -> None:
    quote = emulator().make(QuoteFields())
    assert judge(quote, now=NOW + 28 * 86_400).verified_at == NOW + 28 * 86_400
    with pytest.raises(QuoteError) as caught:
        judge(quote, now=NOW + 30 * 86_400)
    assert caught.value.check is Check.ROOT_CRL_TIME
