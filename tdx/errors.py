"""What can go wrong in tdx: one error for untrusted bytes, a few for the machine around them.

Rules:

1. Any bytes from outside end in a value or in :class:`QuoteError`, never in anything else.
2. A :class:`QuoteError` names the check that failed; the names are the closed list :class:`Check`,
   stable because metrics, logs and refusals carry them.
3. Nothing secret exists on this path, so the offending value is part of the error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "Check",
    "FetchError",
    "GuestError",
    "ImageError",
    "PolicyError",
    "QuoteError",
    "TdxError",
    "moment",
]


class Check(StrEnum):
    """Name every check a quote and its collateral must pass, in the order they are made."""

    # 1 sizes and structure
    SIZE = "size"
    STRUCTURE = "structure"
    TRAILING_BYTES = "trailing_bytes"
    COLLATERAL_FORMAT = "collateral_format"
    # 2 header
    VERSION = "version"
    KEY_TYPE = "key_type"
    TEE_TYPE = "tee_type"
    QE_VENDOR = "qe_vendor"
    BODY_TYPE = "body_type"
    CERTIFICATION_TYPE = "certification_type"
    # 3 trust root
    CHAIN_SHAPE = "chain_shape"
    ROOT_PIN = "root_pin"
    EMULATED_MARKER = "emulated_marker"
    # 4 revocation lists
    ROOT_CRL = "root_crl"
    ROOT_CRL_TIME = "root_crl_time"
    PCK_CRL = "pck_crl"
    PCK_CRL_TIME = "pck_crl_time"
    # 5 PCK chain
    CERTIFICATE_FORMAT = "certificate_format"
    CERTIFICATE_NAME = "certificate_name"
    CERTIFICATE_SIGNATURE = "certificate_signature"
    CERTIFICATE_TIME = "certificate_time"
    CERTIFICATE_CONSTRAINTS = "certificate_constraints"
    CERTIFICATE_REVOKED = "certificate_revoked"
    PCK_EXTENSION = "pck_extension"
    # 6 TCB signer
    TCB_SIGNER = "tcb_signer"
    # 7 signed collateral
    TCB_INFO_SIGNATURE = "tcb_info_signature"
    TCB_INFO_FORMAT = "tcb_info_format"
    TCB_INFO_TIME = "tcb_info_time"
    QE_IDENTITY_SIGNATURE = "qe_identity_signature"
    QE_IDENTITY_FORMAT = "qe_identity_format"
    QE_IDENTITY_TIME = "qe_identity_time"
    # 8 platform
    FMSPC = "fmspc"
    PCEID = "pceid"
    # 9 quoting enclave
    QE_REPORT_SIGNATURE = "qe_report_signature"
    QE_REPORT_DATA = "qe_report_data"
    QE_DEBUG = "qe_debug"
    QE_MRSIGNER = "qe_mrsigner"
    QE_PRODUCT = "qe_product"
    QE_MISCSELECT = "qe_miscselect"
    QE_ATTRIBUTES = "qe_attributes"
    QE_TCB_LEVEL = "qe_tcb_level"
    # 10 the quote itself
    ATTESTATION_KEY = "attestation_key"
    QUOTE_SIGNATURE = "quote_signature"
    # 11 TDX module
    MODULE_IDENTITY = "module_identity"
    MODULE_SIGNER = "module_signer"
    SEAM_ATTRIBUTES = "seam_attributes"
    # 12 TCB level and memory of what was seen
    TCB_LEVEL = "tcb_level"
    ROLLBACK = "rollback"
    # 13 policy
    TCB_STATUS = "tcb_status"
    ADVISORY = "advisory"
    EVALUATION_NUMBER = "evaluation_number"
    TCB_DATE = "tcb_date"
    TD_DEBUG = "td_debug"
    TD_ATTRIBUTES = "td_attributes"
    XFAM = "xfam"
    MRSERVICETD = "mrservicetd"
    MRSEAM = "mrseam"
    MRTD = "mrtd"
    RTMR0 = "rtmr0"
    RTMR1 = "rtmr1"
    RTMR2 = "rtmr2"
    RTMR3 = "rtmr3"
    MRCONFIGID = "mrconfigid"
    MROWNER = "mrowner"
    MROWNERCONFIG = "mrownerconfig"
    VARIANT = "variant"
    # 14 binding
    REPORT_DATA = "report_data"
    BINDING_WINDOW = "binding_window"
    # 15 freshness and platform
    COLLATERAL_AGE = "collateral_age"
    PLATFORM = "platform"
    PLATFORM_REUSED = "platform_reused"
    # beside the list, where two opinions are demanded
    SECOND_VERIFIER = "second_verifier"


class TdxError(Exception):
    """Something tdx did could not be done.

    Args:
        message: One line that names what is wrong.
        hint: One line that says what to do about it.
    """

    reason: ClassVar[str] = "tdx"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def moment(seconds: int) -> str:
    """Return seconds since 1970 as people read them, for errors; as a number where no date fits."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return str(seconds)


class QuoteError(TdxError):
    """A quote, or the collateral it is judged by, fails a check.

    Args:
        check: The check that failed.
        message: What was expected, in one line that goes on from "expected that".
        value: What was found, short enough to log.
        status: TCB status, once steps 1 to 12 have established one (a policy refused it then).
        advisories: Advisory ids that come with ``status``.
    """

    reason = "quote"

    def __init__(
        self,
        check: Check,
        message: str,
        *,
        value: str | int | None = None,
        status: str | None = None,
        advisories: tuple[str, ...] = (),
    ) -> None:
        found = "" if value is None else f" (found {_shorten(str(value))})"
        super().__init__(f"{check}: expected that {message}{found}")
        self.check = check
        self.value = value
        self.status = status
        self.advisories = advisories


class PolicyError(TdxError):
    """A policy, or an argument that configures a verification, cannot be used as it is."""

    reason = "policy"
    exit_code = 2


class GuestError(TdxError):
    """This machine could not produce a quote or a measurement."""

    reason = "guest"

    def __init__(self, message: str, *, retryable: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.may_retry = retryable


class FetchError(TdxError):
    """A collateral service did not answer as it should."""

    reason = "fetch"
    retryable = True


class ImageError(TdxError):
    """A firmware, kernel or event log image does not parse."""

    reason = "image"


def _shorten(text: str, *, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
