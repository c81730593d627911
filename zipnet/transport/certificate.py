"""The node's X.509 certificate: a deterministic envelope around its Ed25519 key.

Nothing is trusted because of what the certificate says; it only carries the key in the shape TLS
wants. The same key and generation always give the same bytes, so a descriptor can name the
certificate and a restarted node presents what the descriptor names.

Rules:

1. Self-signed, valid 2020-01-01 to 9999-12-31: lifetime is the descriptor's business.
2. Not an authority (``CA:FALSE``): a registered node cannot vouch for another key.
3. Python's ``ssl`` loads private keys from files only. The key touches a file just for that call:
   one without a name, in memory (``memfd``), encrypted under a random passphrase that never leaves
   this process.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import ssl
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from zipnet.errors import VerificationError
from zipnet.protocol import ids

__all__ = [
    "CERTIFICATE_ENDS",
    "NodeCertificate",
    "certificate_public_key",
    "load_into",
    "node_certificate",
    "registered_certificate",
]

_NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
CERTIFICATE_ENDS = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # RFC 5280 §4.1.2.5
"""When every node's certificate ends: never, for the descriptor is what ends."""
_MAX_CERTIFICATE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A node's certificate together with the key it was signed by.

    Attributes:
        der: The certificate, DER.
        public_key: Raw Ed25519 public key (32 bytes) inside it.
        private_key: The matching private key; hidden from ``repr``.
    """

    der: bytes
    public_key: bytes
    private_key: Ed25519PrivateKey = field(repr=False, compare=False)


def node_certificate(private_key: Ed25519PrivateKey, generation: int = 0) -> NodeCertificate:
    """Return the certificate of a generation that belongs to an Ed25519 key (protocol.md §3).

    Args:
        private_key: The key.
        generation: 0 for the first; each time it is rotated the next (``zipnet rotate tls``).
    """
    public_key = private_key.public_key()
    raw = public_key.public_bytes_raw()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"zipnet-{raw[:8].hex()}")])
    later = [generation.to_bytes(4, "big")] if generation else []
    serial = int.from_bytes(ids.derive("certificate-serial", raw, *later)[:16], "big") >> 1 | 1
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(CERTIFICATE_ENDS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_signing_only(), critical=True)
        .sign(private_key, None)
    )
    return NodeCertificate(certificate.public_bytes(Encoding.DER), raw, private_key)


def registered_certificate(private_key: Ed25519PrivateKey, der: bytes) -> NodeCertificate:
    """Return the certificate a descriptor names for a key, with the key.

    Raises:
        VerificationError: When it is another key's.
    """
    raw = private_key.public_key().public_bytes_raw()
    if certificate_public_key(der) != raw:
        raise VerificationError("the descriptor's certificate carries another key than this node's")
    return NodeCertificate(der, raw, private_key)


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificate_public_key(der: bytes) -> bytes:
    """Return the raw Ed25519 key (32 bytes) of a certificate.

    Raises:
        VerificationError: When the bytes are no certificate or carry another kind of key.
    """
    if len(der) > _MAX_CERTIFICATE_BYTES:
        raise VerificationError("certificate is too large")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise VerificationError("certificate does not parse") from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("certificate does not carry an Ed25519 key")
    return key.public_bytes_raw()


def load_into(context: ssl.SSLContext, certificate: NodeCertificate) -> None:
    """Give a context the node's certificate and key, leaving no key file behind (rule 3).

    Raises:
        ssl.SSLError: When OpenSSL refuses the pair; cannot happen with :func:`node_certificate`.
    """
    passphrase = secrets.token_hex(32)
    sealed = certificate.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
    )
    chain = ssl.DER_cert_to_PEM_cert(certificate.der).encode()
    # A file without a name, in memory: the ssl module takes a path only.
    descriptor = os.memfd_create("zipnet-identity", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(chain + sealed)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: passphrase)
