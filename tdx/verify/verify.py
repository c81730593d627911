"""Verify a TDX quote in full: from bytes to a typed verdict, offline, at a given time.

1. sizes, structure, nothing after the end but zeros; 2. header, body type, certification types;
3. the pinned root ends every chain; 4. root CRL and PCK CRL; 5. PCK chain; 6. TCB signer, directly
under the root; 7. TCB Info and QE Identity: signature over the exact text, form, time; 8. FMSPC and
PCEID; 9. quoting enclave; 10. quote signature over the raw prefix; 11. TDX module; 12. TCB level,
rollback; 13. policy; 14. report data; 15. freshness and platform.

No step looks at a field of the body before the steps above it have made that field believable, and
a verdict exists only after the last one. Nothing here reads a clock, a file or the network.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from tdx.collateral import MAX_BUNDLE_BYTES, Level
from tdx.errors import Check, PolicyError, QuoteError, moment
from tdx.policy import Assessment, Policy
from tdx.quote import PCK_CHAIN_PEM, PckExtension, Quote, parse_pck_extension, parse_quote
from tdx.trust import (
    EMULATED_FMSPC_PREFIX,
    EMULATED_QE_MRSIGNER,
    EMULATED_USER_DATA,
    TrustRoot,
)
from tdx.verify.certificates import (
    PCK_NAMES,
    TCB_SIGNER_NAMES,
    Certificate,
    check_authority,
    check_end_entity,
)
from tdx.verify.chains import Pool
from tdx.verify.memo import Memo
from tdx.verify.memory import Marks, RollbackMemory
from tdx.verify.revocation import RevocationList, check_list
from tdx.verify.signatures import check_raw_signature, load_point
from tdx.verify.tcb import check_module, check_qe_level, evaluate
from tdx.verify.verdict import SEAL, Verdict

if TYPE_CHECKING:
    from tdx.collateral import Bundle, QeIdentity, TcbInfo

__all__ = ["verify"]

_REPORT_DATA_BYTES = 64


def verify(
    quote: bytes,
    bundle: Bundle,
    *,
    root: TrustRoot,
    now: int,
    policy: Policy | None = None,
    report_data: bytes | None = None,
    seen: RollbackMemory | None = None,
    memo: Memo | None = None,
) -> Verdict:
    """Verify a quote against its collateral (steps 1 to 15 of the module's list).

    Args:
        quote: The quote, at most 16 KiB.
        bundle: Its collateral, at most 1 MiB.
        root: The trusted root.
        now: The time to judge at, Unix seconds.
        policy: What is accepted; the default is ``Policy()``.
        report_data: The 64 bytes the quote must carry; None leaves them to the caller, and the
            verdict says so.
        seen: Numbers of earlier collateral.
        memo: What was read of certificates and collateral before; it changes no verdict.

    Raises:
        QuoteError: The first check that fails. Once a TCB status was established it is attached.
        PolicyError: ``report_data`` has not 64 bytes.
    """
    policy = Policy() if policy is None else policy
    memo = Memo() if memo is None else memo
    if report_data is not None and len(report_data) != _REPORT_DATA_BYTES:
        raise PolicyError(f"expected report data has 64 bytes, not {len(report_data)}")
    _check_size(bundle)  # 1
    parsed = parse_quote(quote)  # 1, 2
    platform = _check_chains(parsed, bundle, root, now, memo)  # 2 to 6
    info, identity = _check_collateral(bundle, platform, now, memo)  # 7
    _check_platform(platform.pck, info, root)  # 8
    qe = _check_enclave(parsed, platform.leaf, identity, root)  # 9
    _check_quote_signature(parsed)  # 10
    check_module(parsed.report, info)  # 11
    tcb = evaluate(parsed.report, platform.pck, info, qe)  # 12
    marks = Marks(
        info.evaluation_number,
        identity.evaluation_number,
        platform.root_crl.number,
        platform.pck_crl.number,
    )
    assessment = Assessment(
        emulated=root.is_emulated,
        status=tcb.status,
        advisories=tcb.advisories,
        tcb_date=tcb.tcb_date,
        evaluation_number=min(info.evaluation_number, identity.evaluation_number),
        # The root CRL is left out: it is renewed yearly and says nothing about freshness.
        issued_at=min(info.issued_at, identity.issued_at, platform.pck_crl.issued_at),
        expires_at=min(info.next_update, identity.next_update, platform.expires_at),
        fmspc=info.fmspc,
        ppid=platform.pck.ppid,
        platform_instance_id=platform.pck.platform_instance_id,
    )
    try:
        if seen is not None:
            seen.check(info.fmspc, marks)  # 12
        policy.check_tcb(assessment, now=now)  # 13
        policy.check_td(parsed.report)  # 13
        _check_report_data(parsed, report_data)  # 14
        policy.check_freshness(assessment, now=now)  # 15
    except QuoteError as error:
        error.status, error.advisories = assessment.status, assessment.advisories
        raise
    return Verdict(
        root=root,
        report=parsed.report,
        assessment=assessment,
        quote_identity=parsed.identity,
        report_data_checked=report_data is not None,
        policy_digest=policy.digest(),
        marks=marks,
        verified_at=now,
        seal=SEAL,
    )


@dataclass(frozen=True, slots=True)
class _Platform:
    root: Certificate
    leaf: Certificate
    signers: tuple[Certificate, Certificate]
    pck: PckExtension
    root_crl: RevocationList
    pck_crl: RevocationList
    expires_at: int


def _check_size(bundle: Bundle) -> None:
    size = sum(
        len(part)
        for part in (
            bundle.pck_crl_issuer_chain,
            bundle.root_ca_crl,
            bundle.pck_crl,
            bundle.tcb_info_issuer_chain,
            bundle.tcb_info,
            bundle.qe_identity_issuer_chain,
            bundle.qe_identity,
        )
    )
    if size > MAX_BUNDLE_BYTES:
        raise QuoteError(Check.SIZE, "collateral is at most 1 MiB", value=size)


def _check_chains(
    parsed: Quote, bundle: Bundle, root: TrustRoot, now: int, memo: Memo
) -> _Platform:
    if parsed.certification_type != PCK_CHAIN_PEM:  # 2
        raise QuoteError(
            Check.CERTIFICATION_TYPE,
            "the quote carries its PCK chain (5)",
            value=parsed.certification_type,
        )
    pool = Pool(root, memo)  # 3
    leaf, authority, top = pool.chain(parsed.certification, 3, "PCK chain")
    crl_issuer, _ = pool.chain(_text(bundle.pck_crl_issuer_chain), 2, "PCK CRL chain")
    tcb_signer, _ = pool.chain(_text(bundle.tcb_info_issuer_chain), 2, "TCB Info chain")
    qe_signer, _ = pool.chain(_text(bundle.qe_identity_issuer_chain), 2, "QE Identity chain")
    if not root.is_emulated and parsed.header.user_data.startswith(EMULATED_USER_DATA):
        raise QuoteError(Check.EMULATED_MARKER, "the quote is not an emulator's")
    check_authority(top, top, path_length=1, now=now)
    listed = memo.root_crl(bundle.root_ca_crl)  # 4
    root_crl = check_list(
        listed, top, now=now, check=Check.ROOT_CRL, time_check=Check.ROOT_CRL_TIME
    )
    root_crl.refuse(top)
    check_authority(authority, top, path_length=0, now=now)  # 5
    root_crl.refuse(authority)
    if crl_issuer is not authority:
        # It may be renewed, under the same name and key; there is no less to check then.
        if (crl_issuer.subject, crl_issuer.key) != (authority.subject, authority.key):
            raise QuoteError(
                Check.PCK_CRL, "the PCK CRL's issuer is the quote's CA", value=crl_issuer.serial
            )
        check_authority(crl_issuer, top, path_length=0, now=now)
        root_crl.refuse(crl_issuer)
    listed = memo.pck_crl(bundle.pck_crl)  # 4
    pck_crl = check_list(
        listed, authority, now=now, check=Check.PCK_CRL, time_check=Check.PCK_CRL_TIME
    )
    check_end_entity(leaf, authority, PCK_NAMES, now=now)  # 5
    pck_crl.refuse(leaf)
    if leaf.sgx_extension is None:
        raise QuoteError(Check.PCK_EXTENSION, "a PCK certificate has the SGX extension")
    pck = parse_pck_extension(leaf.sgx_extension)
    for signer in {id(one): one for one in (tcb_signer, qe_signer)}.values():  # 6
        check_end_entity(signer, top, TCB_SIGNER_NAMES, now=now, role=Check.TCB_SIGNER)
        root_crl.refuse(signer)
    chain = (leaf, authority, top, crl_issuer, tcb_signer, qe_signer)
    expires_at = min(root_crl.next_update, pck_crl.next_update, *(one.not_after for one in chain))
    return _Platform(top, leaf, (tcb_signer, qe_signer), pck, root_crl, pck_crl, expires_at)


def _check_collateral(
    bundle: Bundle, platform: _Platform, now: int, memo: Memo
) -> tuple[TcbInfo, QeIdentity]:
    # The signatures come first: no byte of a document is parsed that Intel did not sign.
    tcb_signer, qe_signer = platform.signers
    check_raw_signature(
        tcb_signer.key, bundle.tcb_info_signature, _text(bundle.tcb_info), Check.TCB_INFO_SIGNATURE
    )
    info = memo.tcb_info(bundle.tcb_info)
    _check_window(info.issued_at, info.next_update, now, Check.TCB_INFO_TIME)
    check_raw_signature(
        qe_signer.key,
        bundle.qe_identity_signature,
        _text(bundle.qe_identity),
        Check.QE_IDENTITY_SIGNATURE,
    )
    identity = memo.qe_identity(bundle.qe_identity)
    _check_window(identity.issued_at, identity.next_update, now, Check.QE_IDENTITY_TIME)
    return info, identity


def _check_platform(pck: PckExtension, info: TcbInfo, root: TrustRoot) -> None:
    if pck.fmspc.startswith(EMULATED_FMSPC_PREFIX) and not root.is_emulated:
        raise QuoteError(Check.EMULATED_MARKER, "the platform is not an emulator's")
    if pck.fmspc != info.fmspc:
        raise QuoteError(Check.FMSPC, f"TCB Info is for {pck.fmspc.hex()}", value=info.fmspc.hex())
    if pck.pceid != info.pceid:
        raise QuoteError(Check.PCEID, f"TCB Info is for {pck.pceid.hex()}", value=info.pceid.hex())


def _check_enclave(
    parsed: Quote, leaf: Certificate, identity: QeIdentity, root: TrustRoot
) -> Level:
    check_raw_signature(
        leaf.key, parsed.qe_report_signature, parsed.qe_report_raw, Check.QE_REPORT_SIGNATURE
    )
    report = parsed.qe_report
    # All 64 bytes: verifiers that compare the first 32 leave the rest to whoever runs the enclave.
    bound = sha256(parsed.attestation_key + parsed.qe_auth_data).digest() + bytes(32)
    if not hmac.compare_digest(report.report_data, bound):
        raise QuoteError(Check.QE_REPORT_DATA, "the QE vouches for this attestation key")
    if report.debug:
        raise QuoteError(Check.QE_DEBUG, "the quoting enclave is not debuggable")
    emulated = EMULATED_QE_MRSIGNER in (report.mrsigner, identity.mrsigner)
    if emulated and not root.is_emulated:
        raise QuoteError(Check.EMULATED_MARKER, "the quoting enclave is not an emulator's")
    if report.mrsigner != identity.mrsigner:
        raise QuoteError(Check.QE_MRSIGNER, "the QE's signer fits", value=report.mrsigner.hex())
    if report.isvprodid != identity.isvprodid:
        raise QuoteError(Check.QE_PRODUCT, "the QE's product fits", value=report.isvprodid)
    if not _masked(report.miscselect, identity.miscselect_mask, identity.miscselect):
        raise QuoteError(
            Check.QE_MISCSELECT, "the QE's MISCSELECT fits", value=report.miscselect.hex()
        )
    if not _masked(report.attributes, identity.attributes_mask, identity.attributes):
        raise QuoteError(
            Check.QE_ATTRIBUTES, "the QE's attributes fit", value=report.attributes.hex()
        )
    return check_qe_level(report.isvsvn, identity)


def _check_quote_signature(parsed: Quote) -> None:
    key = load_point(parsed.attestation_key, Check.ATTESTATION_KEY)
    check_raw_signature(key, parsed.signature, parsed.signed, Check.QUOTE_SIGNATURE)


def _check_report_data(parsed: Quote, expected: bytes | None) -> None:
    found = parsed.report.report_data
    if expected is not None and not hmac.compare_digest(found, expected):
        raise QuoteError(Check.REPORT_DATA, "the report data is the expected", value=found.hex())


def _check_window(issued_at: int, next_update: int, now: int, check: Check) -> None:
    if not issued_at <= now <= next_update:
        raise QuoteError(
            check,
            f"it is valid at {moment(now)}",
            value=f"{moment(issued_at)} to {moment(next_update)}",
        )


def _masked(found: bytes, mask: bytes, expected: bytes) -> bool:
    return bytes(a & b for a, b in zip(found, mask, strict=True)) == expected


def _text(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise QuoteError(Check.COLLATERAL_FORMAT, "collateral texts are ASCII") from error
