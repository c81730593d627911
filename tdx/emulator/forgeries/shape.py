"""Forgeries of structure, header and signatures: what a quote is before anything is believed."""

from __future__ import annotations

from dataclasses import replace

from tdx.emulator.authority import PckValues
from tdx.emulator.forgeries.base import V5, Forgery, Mutations, flip
from tdx.emulator.quotes import QeFields, QuoteFields, TdFields
from tdx.errors import Check
from tdx.quote import MAX_QUOTE_BYTES, BodyType

__all__ = ["BodyMutations", "EnclaveMutations", "SignatureMutations", "StructureMutations"]

_V4_SIGNED = 632
_V4_MRTD = 48 + 136
_V4_SIGNATURE = 636
_V4_QE_REPORT = 770
_V4_AUTH = 1220
_V5_SVN2 = 54 + 584


class StructureMutations(Mutations):
    """Wrong sizes, types and versions."""

    def oversized(self) -> Forgery:
        """Pad beyond 16 KiB."""
        return self._forge(Check.SIZE, QuoteFields(padding=bytes(MAX_QUOTE_BYTES)))

    def truncated(self) -> Forgery:
        """Cut the last byte."""
        return self._forge(Check.STRUCTURE, quote=self._emulator.make(QuoteFields())[:-1])

    def trailing_junk(self) -> Forgery:
        """Append a byte that is not zero."""
        return self._forge(Check.TRAILING_BYTES, QuoteFields(padding=bytes(20) + b"\x01"))

    def wrong_version(self) -> Forgery:
        """Claim version 3."""
        return self._forge(Check.VERSION, QuoteFields(version=3))

    def wrong_key_type(self) -> Forgery:
        """Claim a P-384 attestation key."""
        return self._forge(Check.KEY_TYPE, QuoteFields(key_type=3))

    def wrong_tee_type(self) -> Forgery:
        """Claim an SGX quote."""
        return self._forge(Check.TEE_TYPE, QuoteFields(tee_type=0))

    def wrong_vendor(self) -> Forgery:
        """Claim another QE vendor."""
        return self._forge(Check.QE_VENDOR, QuoteFields(vendor=b"NOT THE VENDOR!!"))

    def outer_type(self) -> Forgery:
        """Mislabel the certification data."""
        return self._forge(Check.CERTIFICATION_TYPE, QuoteFields(outer_type=5))

    def inner_type(self) -> Forgery:
        """Mislabel the PCK chain as a lone leaf."""
        return self._forge(Check.CERTIFICATION_TYPE, QuoteFields(inner_type=4))

    def body_size_lie(self) -> Forgery:
        """Claim one byte too many in the v5 descriptor."""
        return self._forge(Check.BODY_TYPE, quote=flip(self._emulator.make(V5), 50))

    def body_type_unknown(self) -> Forgery:
        """Claim an SGX body in a TDX quote."""
        return self._forge(Check.BODY_TYPE, quote=flip(self._emulator.make(V5), 48, 1))

    def length_lie(self) -> Forgery:
        """Claim a signature section longer than the quote."""
        return self._forge(
            Check.STRUCTURE, quote=flip(self._emulator.make(QuoteFields()), _V4_SIGNED + 1, 7)
        )


class SignatureMutations(Mutations):
    """One bit or one key wrong under each signature of a quote."""

    def body_bit(self) -> Forgery:
        """Flip a bit of MRTD."""
        return self._flipped(Check.QUOTE_SIGNATURE, _V4_MRTD)

    def header_bit(self) -> Forgery:
        """Flip a bit of the header's user data, which nothing else checks."""
        return self._flipped(Check.QUOTE_SIGNATURE, 47)

    def svn2_bit(self) -> Forgery:
        """Flip a bit of TEE_TCB_SVN2, which only version 5 has."""
        return self._forge(Check.QUOTE_SIGNATURE, quote=flip(self._emulator.make(V5), _V5_SVN2))

    def signature_bit(self) -> Forgery:
        """Flip a bit of the quote signature."""
        return self._flipped(Check.QUOTE_SIGNATURE, _V4_SIGNATURE + 5)

    def signature_zero(self) -> Forgery:
        """Put zeros for r and s."""
        return self._forge(Check.QUOTE_SIGNATURE, QuoteFields(attestation_signature=bytes(64)))

    def signature_beyond_order(self) -> Forgery:
        """Put the largest numbers for r and s."""
        return self._forge(Check.QUOTE_SIGNATURE, QuoteFields(attestation_signature=b"\xff" * 64))

    def attestation_key_foreign(self) -> Forgery:
        """Claim another key than signed, vouched for by the quoting enclave."""
        point = self._one.pck.key.public_key().public_numbers()
        claimed = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
        return self._forge(Check.QUOTE_SIGNATURE, QuoteFields(attestation_key=claimed))

    def attestation_key_off_curve(self) -> Forgery:
        """Claim a key that is no point of P-256."""
        return self._forge(Check.ATTESTATION_KEY, QuoteFields(attestation_key=b"\x01" * 64))

    def attestation_key_zero(self) -> Forgery:
        """Claim the point (0, 0)."""
        return self._forge(Check.ATTESTATION_KEY, QuoteFields(attestation_key=bytes(64)))

    def enclave_report_bit(self) -> Forgery:
        """Flip a bit of the quoting enclave's report."""
        return self._flipped(Check.QE_REPORT_SIGNATURE, _V4_QE_REPORT)

    def auth_data_bit(self) -> Forgery:
        """Flip a bit of the QE auth data."""
        return self._flipped(Check.QE_REPORT_DATA, _V4_AUTH)

    def another_platforms_chain(self) -> Forgery:
        """Show the PCK chain of another machine of the same authority."""
        other = self._emulator.another_platform(PckValues(ppid=b"EMULATED PPID 02"))
        chain = (other.hierarchy.pck, self._one.pck_ca, self._one.root)
        pem = "".join(one.pem for one in chain).encode()
        return self._forge(Check.QE_REPORT_SIGNATURE, QuoteFields(chain=pem))

    def _flipped(self, check: Check, at: int) -> Forgery:
        return self._forge(check, quote=flip(self._emulator.make(QuoteFields()), at))


class EnclaveMutations(Mutations):
    """A quoting enclave that is not the one the identity describes."""

    def foreign_key_hash(self) -> Forgery:
        """Vouch for another attestation key."""
        return self._enclave(Check.QE_REPORT_DATA, QeFields(report_data=bytes(64)))

    def report_data_upper_half(self) -> Forgery:
        """Fill the upper half of the report data, which some verifiers never look at."""
        quote = self._emulator.make(QuoteFields())
        whole = quote[_V4_QE_REPORT + 320 : _V4_QE_REPORT + 352] + b"\x01" * 32
        key = quote[700:764]
        fields = QuoteFields(qe=QeFields(report_data=whole), attestation_key=key)
        return self._forge(Check.QE_REPORT_DATA, fields)

    def debug(self) -> Forgery:
        """Run the enclave in debug mode."""
        return self._enclave(Check.QE_DEBUG, QeFields(attributes=b"\x13" + bytes(15)))

    def foreign_signer(self) -> Forgery:
        """Sign the enclave with another key."""
        return self._enclave(Check.QE_MRSIGNER, QeFields(mrsigner=bytes(32)))

    def foreign_product(self) -> Forgery:
        """Show another product of the same signer."""
        return self._enclave(Check.QE_PRODUCT, QeFields(isvprodid=1))

    def miscselect(self) -> Forgery:
        """Set a MISCSELECT bit."""
        return self._enclave(Check.QE_MISCSELECT, QeFields(miscselect=b"\x01\0\0\0"))

    def attributes(self) -> Forgery:
        """Set an attribute under the mask."""
        return self._enclave(Check.QE_ATTRIBUTES, QeFields(attributes=b"\x31" + bytes(15)))

    def extended_attributes(self) -> Forgery:
        """Set an attribute in the upper half, where the identity looks at it."""
        bundle = self._with_qe_identity(attributesMask="FB" + "FF" * 15)
        qe = QeFields(attributes=b"\x11" + bytes(14) + b"\x01")
        return self._forge(Check.QE_ATTRIBUTES, QuoteFields(qe=qe), bundle=bundle)

    def svn_below_every_level(self) -> Forgery:
        """Show an ISVSVN below the lowest level."""
        return self._enclave(Check.QE_TCB_LEVEL, QeFields(isvsvn=1))

    def svn_out_of_date(self) -> Forgery:
        """Show an ISVSVN of an out-of-date level."""
        forgery = self._enclave(Check.TCB_STATUS, QeFields(isvsvn=3))
        return replace(forgery, status="OutOfDate")

    def _enclave(self, check: Check, qe: QeFields) -> Forgery:
        return self._forge(check, QuoteFields(qe=qe))


class BodyMutations(Mutations):
    """Genuine quotes of trust domains that nobody should trust."""

    def debug(self) -> Forgery:
        """Make the TD debuggable."""
        return self._attributes(Check.TD_DEBUG, 1 | 1 << 28)

    def profiling(self) -> Forgery:
        """Let the host profile the TD."""
        return self._attributes(Check.TD_ATTRIBUTES, 1 << 5 | 1 << 28)

    def no_sept_ve_disable(self) -> Forgery:
        """Let the host inject virtualisation exceptions."""
        return self._attributes(Check.TD_ATTRIBUTES, 0)

    def reserved_attribute(self) -> Forgery:
        """Set a reserved attribute."""
        return self._attributes(Check.TD_ATTRIBUTES, 1 << 39 | 1 << 28)

    def migratable(self) -> Forgery:
        """Let the TD migrate."""
        return self._attributes(Check.TD_ATTRIBUTES, 1 << 29 | 1 << 28)

    def service_td_attribute(self) -> Forgery:
        """Set SERVTD_EXT."""
        return self._attributes(Check.TD_ATTRIBUTES, 1 << 17 | 1 << 28)

    def xfam_without_sse(self) -> Forgery:
        """Clear a mandatory XFAM bit."""
        return self._body(Check.XFAM, TdFields(xfam=0x602E5))

    def xfam_reserved(self) -> Forgery:
        """Set a reserved XFAM bit."""
        return self._body(Check.XFAM, TdFields(xfam=0x602E7 | 1 << 40))

    def service_td(self) -> Forgery:
        """Bind a service TD."""
        fields = replace(V5, td=TdFields(mrservicetd=b"\x01" * 48))
        return self._forge(Check.MRSERVICETD, fields, status="UpToDate")

    def td15ex(self) -> Forgery:
        """Show a TD 1.5ex body to a policy that did not opt in."""
        fields = replace(V5, kind=BodyType.TD15EX)
        return self._forge(Check.BODY_TYPE, fields, status="UpToDate")

    def report_data(self) -> Forgery:
        """Bind to something else than the verifier expects, in the last byte."""
        fields = QuoteFields(td=TdFields(report_data=bytes(63) + b"\x01"))
        return self._forge(Check.REPORT_DATA, fields, status="UpToDate", report_data=bytes(64))

    def _attributes(self, check: Check, value: int) -> Forgery:
        return self._body(check, TdFields(td_attributes=value))

    def _body(self, check: Check, td: TdFields) -> Forgery:
        return self._forge(check, QuoteFields(td=td), status="UpToDate")
