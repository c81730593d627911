"""Certificate revocation lists: both are mandatory, complete and from the right issuer."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtensionOID

from tdx.errors import Check, QuoteError, moment
from tdx.quote.der import raw_elements
from tdx.verify.certificates import FOREIGN_ERRORS, Certificate
from tdx.verify.signatures import check_der_signature

__all__ = ["ListForm", "RevocationList", "check_list", "read_list"]

_KNOWN_EXTENSIONS = frozenset({ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER})


@dataclass(frozen=True, slots=True)
class ListForm:
    """Hold a list that was read, and that nobody has verified yet.

    Attributes:
        issuer: Distinguished name of the issuer, in DER.
        number: CRL number.
        issued_at: Unix seconds.
        next_update: Unix seconds.
        signature: DER signature by the issuer.
        signed: The bytes it covers.
        entries: The list, to search.
    """

    issuer: bytes
    number: int
    issued_at: int
    next_update: int
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    entries: x509.CertificateRevocationList = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """Hold a verified list. Only ``check_list`` makes one.

    Attributes:
        number: CRL number.
        issued_at: Unix seconds.
        next_update: Unix seconds.
        entries: The list, to search.
    """

    number: int
    issued_at: int
    next_update: int
    entries: x509.CertificateRevocationList = field(repr=False)

    def refuse(self, certificate: Certificate) -> None:
        """Refuse a certificate that is on the list.

        Raises:
            QuoteError: ``certificate_revoked``.
        """
        try:
            entry = self.entries.get_revoked_certificate_by_serial_number(certificate.serial)
        except FOREIGN_ERRORS as error:
            raise QuoteError(Check.CERTIFICATE_REVOKED, "the CRL can be searched") from error
        if entry is not None:
            raise QuoteError(
                Check.CERTIFICATE_REVOKED,
                f"{certificate.common_name} is not revoked",
                value=f"{certificate.serial:x}",
            )


def read_list(der: bytes, check: Check) -> ListForm:
    """Read a CRL; nothing is verified here.

    Args:
        der: The list.
        check: The check for its form.

    Raises:
        QuoteError: ``check``.
    """
    try:
        parsed = x509.load_der_x509_crl(der)
        algorithm = parsed.signature_hash_algorithm
        extensions = parsed.extensions
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        unknown = [one.oid for one in extensions if one.oid not in _KNOWN_EXTENSIONS]
        issued_at = int(parsed.last_update_utc.timestamp())
        until = parsed.next_update_utc
        signature = parsed.signature
    except FOREIGN_ERRORS as error:
        raise QuoteError(check, "the CRL parses", value=type(error).__name__) from error
    if not isinstance(algorithm, SHA256):
        raise QuoteError(check, "the CRL is signed over SHA-256")
    # A delta or indirect list, or one with its own scope, says less than it seems to say.
    if unknown or until is None:
        raise QuoteError(check, "the CRL is complete, direct and says when the next one comes")
    (signed,) = raw_elements(der, check, most=1)
    # Version 2, which numbered lists have: version, algorithm, issuer.
    issuer = raw_elements(signed, check, most=3)[2]
    return ListForm(issuer, number, issued_at, int(until.timestamp()), signature, signed, parsed)


def check_list(
    form: ListForm, issuer: Certificate, *, now: int, check: Check, time_check: Check
) -> RevocationList:
    """Verify a CRL that was read.

    Args:
        form: The list.
        issuer: The CA that must have signed it.
        now: Unix seconds.
        check: The check for its issuer and signature.
        time_check: The check for its validity.

    Raises:
        QuoteError: ``check`` or ``time_check``.
    """
    if form.issuer != issuer.subject:
        raise QuoteError(check, f"the CRL is {issuer.common_name}'s")
    check_der_signature(issuer.key, form.signature, form.signed, check)
    if not form.issued_at <= now <= form.next_update:
        raise QuoteError(
            time_check,
            f"the CRL is valid at {moment(now)}",
            value=f"{moment(form.issued_at)} to {moment(form.next_update)}",
        )
    return RevocationList(form.number, form.issued_at, form.next_update, form.entries)
