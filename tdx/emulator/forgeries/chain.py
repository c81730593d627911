"""Forgeries of certificates and revocation lists: who vouches for a platform."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tdx.emulator.authority import DAY_S, CrlSpec, Hierarchy, Issued, build_hierarchy, issue
from tdx.emulator.documents import make_bundle
from tdx.emulator.forgeries.base import Forgery, Mutations
from tdx.emulator.quotes import QuoteFields
from tdx.errors import Check

if TYPE_CHECKING:
    from tdx.collateral import Bundle

__all__ = [
    "AuthorityMutations",
    "ChainMutations",
    "RevocationListMutations",
    "RevocationMutations",
    "SignerMutations",
]


class ChainMutations(Mutations):
    """A PCK certificate that is not one."""

    def short_chain(self) -> Forgery:
        """Leave out the root."""
        return self._chain(Check.CHAIN_SHAPE, self._one.pck, self._one.pck_ca)

    def long_chain(self) -> Forgery:
        """Show the root twice."""
        one = self._one
        return self._chain(Check.CHAIN_SHAPE, one.pck, one.pck_ca, one.root, one.root)

    def impostor_root(self) -> Forgery:
        """Show a complete chain under a root with the same name and another key."""
        other = build_hierarchy(self._now)
        return self._chain(Check.ROOT_PIN, other.pck, other.pck_ca, other.root)

    def impostor_leaf(self) -> Forgery:
        """Show a self-made leaf that names the real PCK CA as its issuer."""
        other = build_hierarchy(self._now)
        return self._chain(Check.CERTIFICATE_SIGNATURE, other.pck, self._one.pck_ca, self._one.root)

    def authority_as_leaf(self) -> Forgery:
        """Sign the quoting enclave's report with the PCK CA itself."""
        return self._leaf(Check.CERTIFICATE_NAME, issue(self._ca_spec(), self._one.pck_ca))

    def leaf_may_issue(self) -> Forgery:
        """Give a PCK certificate the right to issue certificates."""
        return self._leaf_spec(Check.CERTIFICATE_CONSTRAINTS, may_issue=True)

    def leaf_may_not_sign(self) -> Forgery:
        """Take the right to sign data away."""
        return self._leaf_spec(Check.CERTIFICATE_CONSTRAINTS, may_sign=False)

    def leaf_is_authority(self) -> Forgery:
        """Give a PCK certificate the CA flag."""
        return self._leaf_spec(Check.CERTIFICATE_CONSTRAINTS, is_authority=True)

    def leaf_expired(self) -> Forgery:
        """Let the PCK certificate lapse a second ago."""
        return self._leaf_spec(Check.CERTIFICATE_TIME, not_after=self._now - 1)

    def leaf_not_yet_valid(self) -> Forgery:
        """Let the PCK certificate begin in a second."""
        return self._leaf_spec(Check.CERTIFICATE_TIME, not_before=self._now + 1)

    def leaf_without_extension(self) -> Forgery:
        """Leave out the SGX extension."""
        return self._leaf_spec(Check.PCK_EXTENSION, sgx_extension=None)

    def leaf_with_broken_extension(self) -> Forgery:
        """Repeat the SGX extension's content within itself."""
        whole = self._one.pck.spec.sgx_extension or b""
        return self._leaf_spec(Check.PCK_EXTENSION, sgx_extension=whole + whole)

    def leaf_on_another_curve(self) -> Forgery:
        """Put a P-384 key into the PCK certificate."""
        leaf = issue(self._pck_spec(), self._one.pck_ca, curve=ec.SECP384R1())
        pem = "".join(one.pem for one in (leaf, self._one.pck_ca, self._one.root)).encode()
        return self._forge(Check.CERTIFICATE_FORMAT, QuoteFields(chain=pem))

    def leaf_of_another_algorithm(self) -> Forgery:
        """Put an Ed25519 key into the PCK certificate."""
        key = ed25519.Ed25519PrivateKey.generate()
        leaf = issue(self._pck_spec(), self._one.pck_ca, key)  # type: ignore[arg-type] # the forgery
        pem = "".join(one.pem for one in (leaf, self._one.pck_ca, self._one.root)).encode()
        return self._forge(Check.CERTIFICATE_FORMAT, QuoteFields(chain=pem))

    def _leaf_spec(self, check: Check, **changes: object) -> Forgery:
        return self._leaf(check, issue(self._pck_spec(**changes), self._one.pck_ca))

    def _leaf(self, check: Check, leaf: Issued) -> Forgery:
        return self._chain(check, leaf, self._one.pck_ca, self._one.root)

    def _chain(self, check: Check, *chain: Issued) -> Forgery:
        return self._forge(check, quote=self._by(*chain))


class AuthorityMutations(Mutations):
    """A PCK CA that may not be one."""

    def foreign_name(self) -> Forgery:
        """Call the PCK CA something else."""
        return self._authority(Check.CERTIFICATE_NAME, common_name="Intel SGX PCK Other CA")

    def named_as_the_root(self) -> Forgery:
        """Give the PCK CA the root's name."""
        return self._authority(Check.CERTIFICATE_NAME, common_name="Intel SGX Root CA")

    def foreign_organization(self) -> Forgery:
        """Let another organisation own the PCK CA."""
        return self._authority(Check.CERTIFICATE_NAME, organization="Somebody Else")

    def expired(self) -> Forgery:
        """Let the PCK CA lapse a second ago."""
        return self._authority(Check.CERTIFICATE_TIME, not_after=self._now - 1)

    def not_an_authority(self) -> Forgery:
        """Take the CA flag away."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, is_authority=False, path_length=None)

    def longer_path(self) -> Forgery:
        """Let the PCK CA make further CAs."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, path_length=1)

    def may_not_issue(self) -> Forgery:
        """Take the right to issue away."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, may_issue=False, may_sign=True)

    def may_only_list(self) -> Forgery:
        """Let the PCK CA sign lists and no certificates."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, may_issue=False, may_list=True)

    def may_not_list(self) -> Forgery:
        """Let the PCK CA sign certificates and no lists."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, may_list=False)

    def path_length_without_flag(self) -> Forgery:
        """Keep the path length and take the CA flag away."""
        return self._authority(Check.CERTIFICATE_FORMAT, raw_constraints=b"\x30\x03\x02\x01\x00")

    def unknown_critical_extension(self) -> Forgery:
        """Add a critical extension nobody knows."""
        return self._authority(Check.CERTIFICATE_CONSTRAINTS, critical_oid="1.3.6.1.4.1.99999.1")

    def self_issued(self) -> Forgery:
        """Show a PCK CA that signed itself under the right names."""
        forged = build_hierarchy(self._now)
        hierarchy = replace(self._one, pck_ca=forged.pck_ca, pck=forged.pck)
        return self._under(Check.CERTIFICATE_SIGNATURE, hierarchy)

    def _authority(self, check: Check, **changes: object) -> Forgery:
        pck_ca = issue(self._ca_spec(**changes), self._one.root)
        pck = issue(self._pck_spec(), pck_ca)
        return self._under(check, replace(self._one, pck_ca=pck_ca, pck=pck))

    def _under(self, check: Check, one: Hierarchy) -> Forgery:
        bundle = make_bundle(self._emulator.recipe(one))
        return self._forge(check, quote=self._by(one.pck, one.pck_ca, one.root), bundle=bundle)


class SignerMutations(Mutations):
    """TCB Info and QE Identity signed by somebody in another role."""

    def tcb_info_by_pck_key(self) -> Forgery:
        """Sign TCB Info with a PCK certificate: what one stolen PCK key can do."""
        recipe = self._recipe()
        chain = (self._one.pck, self._one.root)
        return self._forge(
            Check.TCB_SIGNER, bundle=make_bundle(replace(recipe, tcb_info_chain=chain))
        )

    def tcb_info_by_pck_chain(self) -> Forgery:
        """Sign TCB Info with a PCK certificate and show its whole chain."""
        recipe = self._recipe()
        chain = (self._one.pck, self._one.pck_ca, self._one.root)
        return self._forge(
            Check.CHAIN_SHAPE, bundle=make_bundle(replace(recipe, tcb_info_chain=chain))
        )

    def qe_identity_by_pck_key(self) -> Forgery:
        """Sign QE Identity with a PCK certificate."""
        recipe = self._recipe()
        chain = (self._one.pck, self._one.root)
        return self._forge(
            Check.TCB_SIGNER, bundle=make_bundle(replace(recipe, qe_identity_chain=chain))
        )

    def qe_identity_by_pck_chain(self) -> Forgery:
        """Sign QE Identity with a PCK certificate and show its whole chain."""
        recipe = self._recipe()
        chain = (self._one.pck, self._one.pck_ca, self._one.root)
        return self._forge(
            Check.CHAIN_SHAPE, bundle=make_bundle(replace(recipe, qe_identity_chain=chain))
        )

    def signer_under_pck_ca(self) -> Forgery:
        """Let the PCK CA issue the TCB signer."""
        signer = issue(self._signer_spec(), self._one.pck_ca)
        return self._signed(Check.TCB_SIGNER, signer)

    def signer_with_extension(self) -> Forgery:
        """Give the TCB signer an SGX extension."""
        extension = self._one.pck.spec.sgx_extension
        return self._signer(Check.TCB_SIGNER, sgx_extension=extension)

    def signer_may_not_sign(self) -> Forgery:
        """Take the TCB signer's right to sign data away."""
        return self._signer(Check.TCB_SIGNER, may_sign=False)

    def signer_may_issue(self) -> Forgery:
        """Give the TCB signer the right to issue certificates."""
        return self._signer(Check.TCB_SIGNER, may_issue=True)

    def signer_is_authority(self) -> Forgery:
        """Give the TCB signer the CA flag."""
        return self._signer(Check.TCB_SIGNER, is_authority=True)

    def signer_expired(self) -> Forgery:
        """Let the TCB signer lapse a second ago."""
        return self._signer(Check.CERTIFICATE_TIME, not_after=self._now - 1)

    def signer_not_yet_valid(self) -> Forgery:
        """Let the TCB signer begin in a second."""
        return self._signer(Check.CERTIFICATE_TIME, not_before=self._now + 1)

    def signer_self_made(self) -> Forgery:
        """Show a self-made signer under the right names."""
        return self._signed(Check.CERTIFICATE_SIGNATURE, build_hierarchy(self._now).tcb_signer)

    def signer_foreign_root(self) -> Forgery:
        """Show an impostor's signer and root."""
        other = build_hierarchy(self._now)
        recipe = replace(self._recipe(), tcb_info_chain=(other.tcb_signer, other.root))
        return self._forge(Check.ROOT_PIN, bundle=make_bundle(recipe))

    def _signer(self, check: Check, **changes: object) -> Forgery:
        return self._signed(check, issue(self._signer_spec(**changes), self._one.root))

    def _signed(self, check: Check, signer: Issued) -> Forgery:
        chain = (signer, self._one.root)
        recipe = replace(self._recipe(), tcb_info_chain=chain, qe_identity_chain=chain)
        return self._forge(check, bundle=make_bundle(recipe))


class RevocationMutations(Mutations):
    """Each certificate revoked by whoever may revoke it."""

    def leaf(self) -> Forgery:
        """Revoke the PCK certificate."""
        recipe = self._recipe()
        return self._listed(pck_crl=_revoking(recipe.pck_crl, self._one.pck))

    def authority(self) -> Forgery:
        """Revoke the PCK CA."""
        return self._listed(root_crl=_revoking(self._recipe().root_crl, self._one.pck_ca))

    def tcb_signer(self) -> Forgery:
        """Revoke the TCB signer."""
        return self._listed(root_crl=_revoking(self._recipe().root_crl, self._one.tcb_signer))

    def root(self) -> Forgery:
        """Revoke the root itself."""
        return self._listed(root_crl=_revoking(self._recipe().root_crl, self._one.root))

    def renewed_authority(self) -> Forgery:
        """Show the PCK CRL under a renewed certificate of the CA, which the root revoked."""
        renewed = issue(self._ca_spec(), self._one.root, self._one.pck_ca.key)
        recipe = self._recipe()
        return self._listed(
            root_crl=_revoking(recipe.root_crl, renewed),
            pck_crl_chain=(renewed, self._one.root),
        )

    def _listed(self, **changes: object) -> Forgery:
        bundle = make_bundle(replace(self._recipe(), **changes))  # type: ignore[arg-type] # its fields
        return self._forge(Check.CERTIFICATE_REVOKED, bundle=bundle)


class RevocationListMutations(Mutations):
    """Revocation lists that are missing, stale or another's."""

    def root_list_missing(self) -> Forgery:
        """Leave the root CRL empty."""
        return self._forge(Check.ROOT_CRL, bundle=replace(self._emulator.bundle(), root_ca_crl=b""))

    def pck_list_missing(self) -> Forgery:
        """Leave the PCK CRL empty."""
        return self._forge(Check.PCK_CRL, bundle=replace(self._emulator.bundle(), pck_crl=b""))

    def lists_swapped(self) -> Forgery:
        """Show each list in the other's place."""
        honest = self._emulator.bundle()
        bundle = replace(honest, root_ca_crl=honest.pck_crl, pck_crl=honest.root_ca_crl)
        return self._forge(Check.ROOT_CRL, bundle=bundle)

    def root_list_twice(self) -> Forgery:
        """Show the root's list for the PCK CA's."""
        honest = self._emulator.bundle()
        return self._forge(Check.PCK_CRL, bundle=replace(honest, pck_crl=honest.root_ca_crl))

    def root_list_forged(self) -> Forgery:
        """Sign the root CRL with another key under the right name."""
        return self._lists(Check.ROOT_CRL, root_crl=self._by_impostor("root_crl"))

    def pck_list_forged(self) -> Forgery:
        """Sign the PCK CRL with another key under the right name."""
        return self._lists(Check.PCK_CRL, pck_crl=self._by_impostor("pck_crl"))

    def pck_list_of_another_authority(self) -> Forgery:
        """Show the honest list of a sister CA, under which this platform is not."""
        sister = issue(self._ca_spec(common_name="Intel SGX PCK Processor CA"), self._one.root)
        recipe = self._recipe()
        return self._forge(
            Check.PCK_CRL,
            bundle=make_bundle(
                replace(
                    recipe,
                    pck_crl=replace(recipe.pck_crl, issuer=sister),
                    pck_crl_chain=(sister, self._one.root),
                )
            ),
        )

    def issuer_certificate_forged(self) -> Forgery:
        """Show the PCK CRL under a certificate for the CA's real key that the root never signed."""
        forged = issue(self._ca_spec(), build_hierarchy(self._now).root, self._one.pck_ca.key)
        recipe = replace(self._recipe(), pck_crl_chain=(forged, self._one.root))
        return self._forge(Check.CERTIFICATE_SIGNATURE, bundle=make_bundle(recipe))

    def root_list_expired(self) -> Forgery:
        """Let the root CRL lapse a second ago."""
        spec = replace(self._recipe().root_crl, next_update=self._now - 1)
        return self._lists(Check.ROOT_CRL_TIME, root_crl=spec)

    def pck_list_expired(self) -> Forgery:
        """Let the PCK CRL lapse a second ago."""
        spec = replace(self._recipe().pck_crl, next_update=self._now - 1)
        return self._lists(Check.PCK_CRL_TIME, pck_crl=spec)

    def root_list_from_the_future(self) -> Forgery:
        """Issue the root CRL in a second."""
        spec = replace(self._recipe().root_crl, issued_at=self._now + 1)
        return self._lists(Check.ROOT_CRL_TIME, root_crl=spec)

    def pck_list_from_the_future(self) -> Forgery:
        """Issue the PCK CRL tomorrow."""
        spec = replace(self._recipe().pck_crl, issued_at=self._now + DAY_S)
        return self._lists(Check.PCK_CRL_TIME, pck_crl=spec)

    def _by_impostor(self, name: str) -> CrlSpec:
        recipe = self._recipe()
        other = build_hierarchy(self._now)
        if name == "root_crl":
            return replace(recipe.root_crl, issuer=other.root)
        return replace(recipe.pck_crl, issuer=other.pck_ca)

    def _lists(self, check: Check, **lists: CrlSpec) -> Forgery:
        bundle: Bundle = make_bundle(replace(self._recipe(), **lists))  # type: ignore[arg-type] # two CRLs
        return self._forge(check, bundle=bundle)


def _revoking(spec: CrlSpec, certificate: Issued) -> CrlSpec:
    return replace(spec, revoked=(certificate.certificate.serial_number,))
