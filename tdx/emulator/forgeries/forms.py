"""Certificates and lists of the right roles in the wrong form, signed by whoever should sign."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from tdx.collateral import MAX_BUNDLE_BYTES
from tdx.emulator.authority import Hierarchy, Issued, issue
from tdx.emulator.documents import make_bundle
from tdx.emulator.forgeries.base import Forgery, Mutations
from tdx.emulator.quotes import QuoteFields
from tdx.errors import Check
from tdx.quote.der import raw_elements
from tdx.trust import TrustRoot

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["CertificateFormMutations", "RevocationFormMutations", "RootMutations"]

_SERIAL = 1
_SUBJECT = 5
_NEXT_UPDATE = 4
_LONG = 0x80


class CertificateFormMutations(Mutations):
    """PCK certificates in a form nobody should read."""

    def leaf_over_another_hash(self) -> Forgery:
        """Sign the PCK certificate over SHA-384."""
        leaf = issue(self._pck_spec(), self._one.pck_ca, algorithm=SHA384())
        return self._shown(Check.CERTIFICATE_FORMAT, leaf)

    def leaf_of_version_1(self) -> Forgery:
        """Leave the version out and keep the extensions."""
        return self._edited(Check.CERTIFICATE_FORMAT, lambda fields: fields[1:])

    def leaf_with_serial_zero(self) -> Forgery:
        """Number the certificate 0."""
        return self._edited(Check.CERTIFICATE_FORMAT, _put(_SERIAL, b"\x02\x01\x00"))

    def leaf_with_two_names(self) -> Forgery:
        """Name the certificate both as it should be and otherwise."""
        fields = raw_elements(
            raw_elements(self._one.pck.der, Check.CERTIFICATE_FORMAT)[0], Check.CERTIFICATE_FORMAT
        )
        names = raw_elements(fields[_SUBJECT], Check.CERTIFICATE_FORMAT)
        twice = _sequence([*names, names[0]])
        return self._edited(Check.CERTIFICATE_NAME, _put(_SUBJECT, twice))

    def leaf_with_bytes_after(self) -> Forgery:
        """Append a byte to the certificate."""
        return self._der(Check.CERTIFICATE_FORMAT, self._one.pck.der + b"\0")

    def leaf_without_constraints(self) -> Forgery:
        """Leave out basicConstraints."""
        leaf = issue(self._pck_spec(has_constraints=False), self._one.pck_ca)
        return self._shown(Check.CERTIFICATE_FORMAT, leaf)

    def leaf_without_usage(self) -> Forgery:
        """Leave out keyUsage."""
        leaf = issue(self._pck_spec(has_usage=False), self._one.pck_ca)
        return self._shown(Check.CERTIFICATE_FORMAT, leaf)

    def _edited(self, check: Check, edit: Callable[[list[bytes]], list[bytes]]) -> Forgery:
        signed, algorithm, _ = raw_elements(self._one.pck.der, Check.CERTIFICATE_FORMAT)
        fields = edit(raw_elements(signed, Check.CERTIFICATE_FORMAT))
        return self._der(check, _resigned(fields, algorithm, self._one.pck_ca))

    def _der(self, check: Check, der: bytes) -> Forgery:
        chain = (self._one.pck, self._one.pck_ca, self._one.root)
        whole = "".join(one.pem for one in chain).replace(self._one.pck.pem, _pem(der))
        return self._forge(check, QuoteFields(chain=whole.encode()))

    def _shown(self, check: Check, leaf: Issued) -> Forgery:
        return self._forge(check, quote=self._by(leaf, self._one.pck_ca, self._one.root))


class RevocationFormMutations(Mutations):
    """Revocation lists in a form that says less than it seems to say."""

    def list_over_another_hash(self) -> Forgery:
        """Sign the root CRL over SHA-384."""
        recipe = self._recipe()
        changed = replace(recipe, root_crl=replace(recipe.root_crl, algorithm=SHA384()))
        return self._forge(Check.ROOT_CRL, bundle=make_bundle(changed))

    def list_of_limited_scope(self) -> Forgery:
        """Let the PCK CRL cover CA certificates only."""
        recipe = self._recipe()
        changed = replace(recipe, pck_crl=replace(recipe.pck_crl, scoped=True))
        return self._forge(Check.PCK_CRL, bundle=make_bundle(changed))

    def list_without_end(self) -> Forgery:
        """Leave out of the PCK CRL when the next one comes."""
        listed = raw_elements(self._emulator.bundle().pck_crl, Check.PCK_CRL)
        fields = raw_elements(listed[0], Check.PCK_CRL)
        der = _resigned(
            fields[:_NEXT_UPDATE] + fields[_NEXT_UPDATE + 1 :], listed[1], self._one.pck_ca
        )
        return self._forge(Check.PCK_CRL, bundle=replace(self._emulator.bundle(), pck_crl=der))

    def list_in_another_name(self) -> Forgery:
        """Sign the PCK CRL with the right key in the root's name."""
        recipe = self._recipe()
        name: x509.Name = self._one.root.certificate.subject
        changed = replace(recipe, pck_crl=replace(recipe.pck_crl, named=name))
        return self._forge(Check.PCK_CRL, bundle=make_bundle(changed))

    def list_under_a_sister(self) -> Forgery:
        """Show the right PCK CRL under the chain of a sister CA."""
        sister = issue(self._ca_spec(common_name="Intel SGX PCK Processor CA"), self._one.root)
        changed = replace(self._recipe(), pck_crl_chain=(sister, self._one.root))
        return self._forge(Check.PCK_CRL, bundle=make_bundle(changed))

    def list_under_a_namesake(self) -> Forgery:
        """Show the right PCK CRL under the chain of another CA of the same name."""
        other = issue(self._ca_spec(), self._one.root)
        changed = replace(self._recipe(), pck_crl_chain=(other, self._one.root))
        return self._forge(Check.PCK_CRL, bundle=make_bundle(changed))

    def list_under_another_name(self) -> Forgery:
        """Show the right PCK CRL under the chain of a CA of another name with the same key."""
        spec = self._ca_spec(common_name="Intel SGX PCK Processor CA")
        other = issue(spec, self._one.root, self._one.pck_ca.key)
        changed = replace(self._recipe(), pck_crl_chain=(other, self._one.root))
        return self._forge(Check.PCK_CRL, bundle=make_bundle(changed))

    def oversized(self) -> Forgery:
        """Show more than 1 MiB of collateral."""
        padded = replace(self._emulator.bundle(), pck_crl=bytes(MAX_BUNDLE_BYTES))
        return self._forge(Check.SIZE, bundle=padded)


class RootMutations(Mutations):
    """A root that the verifier pinned and that says of itself that it is none."""

    def expired(self) -> Forgery:
        """Let the pinned root lapse a second ago."""
        return self._under(Check.CERTIFICATE_TIME, not_after=self._now - 1)

    def not_yet_valid(self) -> Forgery:
        """Let the pinned root begin in a second."""
        return self._under(Check.CERTIFICATE_TIME, not_before=self._now + 1)

    def foreign_name(self) -> Forgery:
        """Call the pinned root something else."""
        return self._under(Check.CERTIFICATE_NAME, common_name="Intel SGX Other Root CA")

    def not_an_authority(self) -> Forgery:
        """Take the CA flag away."""
        return self._under(Check.CERTIFICATE_CONSTRAINTS, is_authority=False, path_length=None)

    def longer_path(self) -> Forgery:
        """Let the PCK CA's CAs make CAs."""
        return self._under(Check.CERTIFICATE_CONSTRAINTS, path_length=2)

    def may_not_issue(self) -> Forgery:
        """Take the right to issue away."""
        return self._under(Check.CERTIFICATE_CONSTRAINTS, may_issue=False, may_sign=True)

    def with_extension(self) -> Forgery:
        """Give the root an SGX extension."""
        extension = self._one.pck.spec.sgx_extension
        return self._under(Check.CERTIFICATE_CONSTRAINTS, sgx_extension=extension)

    def _under(self, check: Check, **changes: object) -> Forgery:
        root = issue(self._root_spec(**changes), None)
        pck_ca = issue(self._ca_spec(), root)
        pck = issue(self._pck_spec(), pck_ca)
        one = Hierarchy(root, pck_ca, pck, issue(self._signer_spec(), root))
        return Forgery(
            check=check,
            quote=self._by(pck, pck_ca, root),
            bundle=make_bundle(self._emulator.recipe(one)),
            root=TrustRoot.emulated(root.der),
            root_der=root.der,
            now=self._now,
        )


def _resigned(fields: list[bytes], algorithm: bytes, issuer: Issued) -> bytes:
    body = _sequence(fields)
    signature = issuer.key.sign(body, ec.ECDSA(SHA256()))
    bits = b"\x03" + _length(len(signature) + 1) + b"\0" + signature
    return _sequence([body, algorithm, bits])


def _put(place: int, element: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda fields: [*fields[:place], element, *fields[place + 1 :]]


def _pem(der: bytes) -> str:
    text = binascii.b2a_base64(der, newline=False).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


def _sequence(elements: list[bytes]) -> bytes:
    content = b"".join(elements)
    return b"\x30" + _length(len(content)) + content


def _length(size: int) -> bytes:
    if size < _LONG:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([_LONG | len(digits)]) + digits
