"""The node's certificate: the same bytes for the same key, and no key file left behind."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from zipnet.errors import VerificationError
from zipnet.transport.certificate import certificate_public_key, load_into, node_certificate

SEED = bytes(range(32))


def test_the_same_key_always_gives_the_same_certificate() -> None:
    first = node_certificate(Ed25519PrivateKey.from_private_bytes(SEED))
    second = node_certificate(Ed25519PrivateKey.from_private_bytes(SEED))
    other = node_certificate(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert first.der == second.der
    assert first.der != other.der
    parsed, parsed_other = (x509.load_der_x509_certificate(c.der) for c in (first, other))
    assert parsed.serial_number != parsed_other.serial_number
    assert 0 < parsed.serial_number.bit_length() <= 159  # RFC 5280 §4.1.2.2


def test_the_certificate_is_self_signed_lasts_and_is_no_authority() -> None:
    made = node_certificate(Ed25519PrivateKey.from_private_bytes(SEED))
    parsed = x509.load_der_x509_certificate(made.der)
    parsed.verify_directly_issued_by(parsed)
    assert parsed.not_valid_before_utc.isoformat() == "2020-01-01T00:00:00+00:00"
    assert parsed.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"
    assert parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate_public_key(made.der) == made.public_key
    assert made.public_key[:8].hex() in parsed.subject.rfc4514_string()


def test_the_private_key_is_not_shown() -> None:
    assert "private" not in repr(node_certificate(Ed25519PrivateKey.from_private_bytes(SEED)))


def _elliptic() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    made = node_certificate(Ed25519PrivateKey.from_private_bytes(SEED))
    pattern = x509.load_der_x509_certificate(made.der)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(pattern.not_valid_before_utc)
        .not_valid_after(pattern.not_valid_after_utc)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )


@pytest.mark.parametrize("der", [b"", b"\x30\x00", bytes(300), bytes(5000), _elliptic()])
def test_what_is_no_certificate_of_ours_is_refused(der: bytes) -> None:
    with pytest.raises(VerificationError):
        certificate_public_key(der)


def test_the_key_touches_a_file_in_memory_encrypted_and_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = node_certificate(Ed25519PrivateKey.from_private_bytes(SEED))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    seen: list[str] = []
    load = ssl.SSLContext.load_cert_chain
    before = len(list(Path("/proc/self/fd").iterdir()))

    def watch(self: ssl.SSLContext, certfile: str, **rest: Any) -> None:  # noqa: ANN401 - as ssl
        seen.append(str(Path(certfile).readlink()))
        content = Path(certfile).read_bytes()
        assert b"ENCRYPTED PRIVATE KEY" in content
        assert SEED not in content
        load(self, certfile, **rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    load_into(context, made)
    (name,) = seen
    assert name.startswith("/memfd:"), "a file in memory, without a name on any disk"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
