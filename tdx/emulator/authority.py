"""The emulator's certificates and revocation lists: Intel's hierarchy, visibly not Intel's.

Keys are generated in memory and never written. Every subject names the organisation
``EMULATED - NOT INTEL``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from tdx.quote import SGX_EXTENSION_OID
from tdx.trust import EMULATED_FMSPC_PREFIX, EMULATED_ORGANIZATION

__all__ = [
    "CertificateSpec",
    "CrlSpec",
    "Hierarchy",
    "Issued",
    "PckValues",
    "build_hierarchy",
    "issue",
    "make_crl",
    "sgx_extension",
]

DAY_S = 86_400
_YEAR_S = 365 * DAY_S
_CA_ONLY = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=True,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)
_SGX_ARC = bytes.fromhex("2a864886f84d010d01")


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """Hold what one certificate says.

    Attributes:
        common_name: Its role, by Intel's name for it.
        not_before: Unix seconds.
        not_after: Unix seconds.
        organization: The marker, unless a mutation lies.
        is_authority: basicConstraints.
        path_length: pathLenConstraint of an authority.
        may_issue: keyUsage keyCertSign and cRLSign.
        may_sign: keyUsage digitalSignature.
        sgx_extension: DER of the SGX extension.
        critical_oid: An unknown critical extension.
        other_oid: An unknown extension that is not critical.
        may_list: keyUsage cRLSign where it differs from ``may_issue``.
        has_constraints: Whether basicConstraints is there at all.
        raw_constraints: DER of basicConstraints, in place of the two fields above.
        has_usage: Whether keyUsage is there at all.
    """

    common_name: str
    not_before: int
    not_after: int
    organization: str = EMULATED_ORGANIZATION
    is_authority: bool = False
    path_length: int | None = None
    may_issue: bool = False
    may_sign: bool = True
    sgx_extension: bytes | None = None
    critical_oid: str | None = None
    other_oid: str | None = None
    may_list: bool | None = None
    has_constraints: bool = True
    raw_constraints: bytes | None = None
    has_usage: bool = True

    def subject(self) -> x509.Name:
        """Return the distinguished name."""
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, self.common_name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.organization),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            ]
        )


@dataclass(frozen=True, slots=True)
class Issued:
    """Hold a certificate with its private key."""

    spec: CertificateSpec
    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class PckValues:
    """Hold what the SGX extension of a PCK certificate says.

    Attributes:
        fmspc: 6 bytes.
        pceid: 2 bytes.
        ppid: 16 bytes.
        platform_instance_id: 16 bytes.
        component_svns: Sixteen SVNs.
        pcesvn: SVN of the provisioning certification enclave.
    """

    fmspc: bytes = EMULATED_FMSPC_PREFIX + b"\0"
    pceid: bytes = b"\0\0"
    ppid: bytes = b"EMULATED PPID 01"
    platform_instance_id: bytes = b"EMULATED PIID 01"
    component_svns: tuple[int, ...] = (3,) * 16
    pcesvn: int = 11


@dataclass(frozen=True, slots=True)
class CrlSpec:
    """Hold what a revocation list says.

    Attributes:
        issuer: Who signs it.
        issued_at: Unix seconds.
        next_update: Unix seconds.
        revoked: Serial numbers.
        number: CRL number.
        named: The issuer it names, if that is not who signs.
        scoped: Whether it says that it covers CA certificates only.
        algorithm: Hash that is signed over; SHA-256 by default.
    """

    issuer: Issued
    issued_at: int
    next_update: int
    revoked: tuple[int, ...] = ()
    number: int = 1
    named: x509.Name | None = None
    scoped: bool = False
    algorithm: SHA256 | SHA384 | None = None


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Hold the four certificates of an emulated Intel."""

    root: Issued
    pck_ca: Issued
    pck: Issued
    tcb_signer: Issued


def build_hierarchy(now: int, values: PckValues | None = None) -> Hierarchy:
    """Make root, PCK CA, PCK certificate and TCB signer, valid for years around ``now``."""
    start, end = now - _YEAR_S, now + 7 * _YEAR_S
    root_spec = CertificateSpec(
        "Intel SGX Root CA",
        start,
        end,
        is_authority=True,
        path_length=1,
        may_issue=True,
        may_sign=False,
    )
    root = issue(root_spec, None)
    pck_ca = issue(replace(root_spec, common_name="Intel SGX PCK Platform CA", path_length=0), root)
    pck = issue(
        CertificateSpec(
            "Intel SGX PCK Certificate",
            start,
            end,
            sgx_extension=sgx_extension(values or PckValues()),
        ),
        pck_ca,
    )
    return Hierarchy(
        root, pck_ca, pck, issue(CertificateSpec("Intel SGX TCB Signing", start, end), root)
    )


def issue(
    spec: CertificateSpec,
    issuer: Issued | None,
    key: ec.EllipticCurvePrivateKey | None = None,
    *,
    curve: ec.EllipticCurve | None = None,
    algorithm: SHA256 | SHA384 | None = None,
) -> Issued:
    """Issue a certificate; without ``issuer`` it signs itself.

    Args:
        spec: What it says.
        issuer: Who signs it.
        key: Its key; a fresh one by default.
        curve: Curve of a fresh key.
        algorithm: Hash that is signed over; SHA-256 by default.
    """
    own = key or ec.generate_private_key(curve or ec.SECP256R1())
    signing = issuer.key if issuer else own
    builder = (
        x509.CertificateBuilder()
        .subject_name(spec.subject())
        .issuer_name(issuer.certificate.subject if issuer else spec.subject())
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(spec.not_before))
        .not_valid_after(_moment(spec.not_after))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    )
    if spec.has_usage:
        builder = builder.add_extension(_usage(spec), critical=True)
    if spec.has_constraints:
        builder = builder.add_extension(_constraints(spec), critical=True)
    if spec.sgx_extension is not None:
        oid = x509.ObjectIdentifier(SGX_EXTENSION_OID)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(oid, spec.sgx_extension), critical=False
        )
    for oid_text, critical in ((spec.critical_oid, True), (spec.other_oid, False)):
        if oid_text is not None:
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid_text), b"\x05\0")
            builder = builder.add_extension(unknown, critical=critical)
    return Issued(spec, builder.sign(signing, algorithm or SHA256()), own)


def make_crl(spec: CrlSpec) -> bytes:
    """Make a revocation list in DER."""
    issuer = spec.issuer
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(spec.named or issuer.certificate.subject)
        .last_update(_moment(spec.issued_at))
        .next_update(_moment(spec.next_update))
        .add_extension(x509.CRLNumber(spec.number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    for serial in spec.revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(_moment(spec.issued_at))
            .build()
        )
    if spec.scoped:
        builder = builder.add_extension(_CA_ONLY, critical=True)
    return builder.sign(issuer.key, spec.algorithm or SHA256()).public_bytes(Encoding.DER)


def sgx_extension(values: PckValues) -> bytes:
    """Encode the SGX extension in DER."""
    tcb = b"".join(
        _field(bytes([2, position]), 0x02, _integer(svn))
        for position, svn in enumerate((*values.component_svns, values.pcesvn), start=1)
    )
    tcb += _field(b"\x02\x12", 0x04, bytes(values.component_svns))
    # webpki-based verifiers read these three as Intel writes them for multi-package machines.
    flags = b"".join(_field(bytes([7, position]), 0x01, b"\xff") for position in (1, 2, 3))
    return _der(
        0x30,
        _field(b"\x01", 0x04, values.ppid)
        + _field(b"\x02", 0x30, tcb)
        + _field(b"\x03", 0x04, values.pceid)
        + _field(b"\x04", 0x04, values.fmspc)
        + _field(b"\x05", 0x0A, b"\x01")
        + _field(b"\x06", 0x04, values.platform_instance_id)
        + _field(b"\x07", 0x30, flags),
    )


def _constraints(spec: CertificateSpec) -> x509.ExtensionType:
    if spec.raw_constraints is None:
        return x509.BasicConstraints(ca=spec.is_authority, path_length=spec.path_length)
    return x509.UnrecognizedExtension(ExtensionOID.BASIC_CONSTRAINTS, spec.raw_constraints)


def _usage(spec: CertificateSpec) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=spec.may_sign,
        content_commitment=spec.may_sign,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=spec.may_issue,
        crl_sign=spec.may_issue if spec.may_list is None else spec.may_list,
        encipher_only=False,
        decipher_only=False,
    )


def _field(arc: bytes, tag: int, value: bytes) -> bytes:
    return _der(0x30, _der(0x06, _SGX_ARC + arc) + _der(tag, value))


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - the bit that marks a long length
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
