"""The certificates of Intel's small hierarchy, checked by hand.

Root (pathlen 1) → PCK Platform or Processor CA (pathlen 0) → PCK Certificate, and root → TCB
Signing. Generic path builders expect web names and have no CRLs; these chains have fixed lengths
and fixed roles. Roles are kept apart: a PCK certificate can never sign collateral, although it
chains to the same root (a verifier that forgets this accepts TCB Info from any stolen PCK key).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtensionOID, NameOID

from tdx.errors import Check, QuoteError, moment
from tdx.quote import SGX_EXTENSION_OID
from tdx.quote.der import raw_elements
from tdx.verify.signatures import check_der_signature

__all__ = [
    "FOREIGN_ERRORS",
    "PCK_CA_NAMES",
    "PCK_NAMES",
    "TCB_SIGNER_NAMES",
    "Certificate",
    "check_authority",
    "check_end_entity",
    "check_time",
    "read_certificate",
]

PCK_CA_NAMES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
PCK_NAMES = ("Intel SGX PCK Certificate",)
TCB_SIGNER_NAMES = ("Intel SGX TCB Signing",)
_ROOT_NAMES = ("Intel SGX Root CA",)
# Places in a version 3 certificate: version, serial number, algorithm, issuer, validity, subject.
_ISSUER = 3
_SUBJECT = 5
_SGX = x509.ObjectIdentifier(SGX_EXTENSION_OID)
_KNOWN_EXTENSIONS = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        _SGX,
    }
)
# What the X.509 library raises for bytes it does not like; warnings are there because a program may
# turn them into errors.
FOREIGN_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UserWarning,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Hold what the checks need of a certificate, read once and completely.

    Attributes:
        subject: Distinguished name, in DER: names are compared as bytes.
        issuer: Distinguished name of the issuer, in DER.
        common_name: The subject's one common name.
        organization: The subject's one organisation.
        serial: Serial number.
        not_before: Unix seconds.
        not_after: Unix seconds.
        key: P-256 public key.
        signature: DER signature by the issuer.
        signed: The bytes it covers.
        is_authority: basicConstraints CA.
        path_length: basicConstraints pathLenConstraint.
        usage: keyUsage.
        sgx_extension: DER of the SGX extension, or None.
    """

    subject: bytes
    issuer: bytes
    common_name: str
    organization: str
    serial: int
    not_before: int
    not_after: int
    key: ec.EllipticCurvePublicKey = field(repr=False)
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    is_authority: bool
    path_length: int | None
    usage: x509.KeyUsage
    sgx_extension: bytes | None = field(repr=False)


def read_certificate(der: bytes) -> Certificate:
    """Read a DER certificate completely.

    Raises:
        QuoteError: ``certificate_format``, ``certificate_name`` or ``certificate_constraints``.
    """
    try:
        return _read(der, x509.load_der_x509_certificate(der))
    except FOREIGN_ERRORS as error:
        raise QuoteError(
            Check.CERTIFICATE_FORMAT, "a certificate is X.509 v3", value=type(error).__name__
        ) from error


def _read(der: bytes, parsed: x509.Certificate) -> Certificate:
    # What is compared or verified as bytes is cut out of the bytes that came.
    (signed,) = raw_elements(der, Check.CERTIFICATE_FORMAT, most=1)
    fields = raw_elements(signed, Check.CERTIFICATE_FORMAT, most=_SUBJECT + 1)
    key, serial = parsed.public_key(), parsed.serial_number
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise QuoteError(Check.CERTIFICATE_FORMAT, "a certificate's key is P-256")
    if not isinstance(parsed.signature_hash_algorithm, SHA256):
        raise QuoteError(Check.CERTIFICATE_FORMAT, "a certificate is signed over SHA-256")
    if parsed.version is not x509.Version.v3:
        raise QuoteError(Check.CERTIFICATE_FORMAT, "a certificate is X.509 v3")
    if serial <= 0:
        raise QuoteError(Check.CERTIFICATE_FORMAT, "a serial number is positive")
    basic, usage, sgx_extension = _read_extensions(parsed.extensions)
    common_name, organization = _read_subject(parsed.subject)
    return Certificate(
        subject=fields[_SUBJECT],
        issuer=fields[_ISSUER],
        common_name=common_name,
        organization=organization,
        serial=serial,
        not_before=int(parsed.not_valid_before_utc.timestamp()),
        not_after=int(parsed.not_valid_after_utc.timestamp()),
        key=key,
        signature=parsed.signature,
        signed=signed,
        is_authority=basic.ca,
        path_length=basic.path_length,
        usage=usage,
        sgx_extension=sgx_extension,
    )


def _read_extensions(
    extensions: x509.Extensions,
) -> tuple[x509.BasicConstraints, x509.KeyUsage, bytes | None]:
    basic: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    sgx_extension: bytes | None = None
    # The library refuses a certificate in which one of them appears twice.
    for extension in extensions:
        oid, value = extension.oid, extension.value
        if isinstance(value, x509.BasicConstraints):
            basic = value
        elif isinstance(value, x509.KeyUsage):
            usage = value
        elif oid == _SGX and isinstance(value, x509.UnrecognizedExtension):
            sgx_extension = value.value
        elif extension.critical and oid not in _KNOWN_EXTENSIONS:
            raise QuoteError(
                Check.CERTIFICATE_CONSTRAINTS,
                "every critical extension is known",
                value=oid.dotted_string,
            )
    if basic is None or usage is None:
        raise QuoteError(Check.CERTIFICATE_FORMAT, "a certificate says what its key is for")
    return basic, usage, sgx_extension


def check_authority(
    certificate: Certificate, issuer: Certificate, *, path_length: int, now: int
) -> None:
    """Check the root (its own issuer, pinned before) or the PCK CA.

    Raises:
        QuoteError: Named for the check.
    """
    is_root = certificate is issuer
    _check_name(certificate, issuer, _ROOT_NAMES if is_root else PCK_CA_NAMES, None)
    if not is_root:
        _check_signature(certificate, issuer)
    check_time(certificate, now)
    usage = certificate.usage
    if not (certificate.is_authority and certificate.path_length == path_length):
        raise QuoteError(
            Check.CERTIFICATE_CONSTRAINTS,
            f"{certificate.common_name} is a CA with path length {path_length}",
            value=certificate.path_length,
        )
    if not (usage.key_cert_sign and usage.crl_sign):
        raise QuoteError(Check.CERTIFICATE_CONSTRAINTS, "a CA may sign certificates and CRLs")
    _check_no_extension(certificate, Check.CERTIFICATE_CONSTRAINTS)


def check_end_entity(
    certificate: Certificate,
    issuer: Certificate,
    names: tuple[str, ...],
    *,
    now: int,
    role: Check | None = None,
) -> None:
    """Check a PCK certificate, or with ``role`` a TCB signer, which has no SGX extension.

    Args:
        certificate: The certificate.
        issuer: The certificate that must have issued it.
        names: Its possible common names.
        now: Unix seconds.
        role: The check that names a certificate in the wrong role; None for a PCK certificate.

    Raises:
        QuoteError: Named for the check.
    """
    _check_name(certificate, issuer, names, role)
    if role is not None:
        _check_no_extension(certificate, role)
    _check_signature(certificate, issuer)
    check_time(certificate, now)
    usage = certificate.usage
    if certificate.is_authority or usage.key_cert_sign or not usage.digital_signature:
        raise QuoteError(
            role or Check.CERTIFICATE_CONSTRAINTS,
            f"{certificate.common_name} signs data and is no CA",
        )


def check_time(certificate: Certificate, now: int) -> None:
    """Check both ends of a certificate's validity.

    Raises:
        QuoteError: ``certificate_time``.
    """
    if not certificate.not_before <= now <= certificate.not_after:
        raise QuoteError(
            Check.CERTIFICATE_TIME,
            f"{certificate.common_name} is valid at {moment(now)}",
            value=f"{moment(certificate.not_before)} to {moment(certificate.not_after)}",
        )


def _check_name(
    certificate: Certificate, issuer: Certificate, names: tuple[str, ...], role: Check | None
) -> None:
    if certificate.common_name not in names:
        raise QuoteError(
            role or Check.CERTIFICATE_NAME,
            f"the certificate is {' or '.join(names)}",
            value=certificate.common_name,
        )
    if certificate.issuer != issuer.subject:
        raise QuoteError(
            role or Check.CERTIFICATE_NAME,
            f"{certificate.common_name} is issued by {issuer.common_name}",
            value=certificate.issuer.hex(),
        )


def _check_signature(certificate: Certificate, issuer: Certificate) -> None:
    check_der_signature(
        issuer.key, certificate.signature, certificate.signed, Check.CERTIFICATE_SIGNATURE
    )


def _check_no_extension(certificate: Certificate, check: Check) -> None:
    if certificate.sgx_extension is not None:
        raise QuoteError(check, f"{certificate.common_name} has no SGX extension")


def _read_subject(subject: x509.Name) -> tuple[str, str]:
    names: list[str | bytes] = []
    organizations: list[str | bytes] = []
    for attribute in subject:
        if attribute.oid == NameOID.COMMON_NAME:
            names.append(attribute.value)
        elif attribute.oid == NameOID.ORGANIZATION_NAME:
            organizations.append(attribute.value)
    match names, organizations:
        case [str(name)], [str(organization)]:
            return name, organization
        case _:
            raise QuoteError(Check.CERTIFICATE_NAME, "a subject has one name and one organisation")
