"""A software Intel and a software TDX host: real structures, real signatures, no trust at all.

It stands in where there is no TDX hardware. What keeps it from being mistaken for the real thing:
keys live in this process alone; its quotes verify only under ``TrustRoot.emulated`` of its own
root; certificates, header, enclave signer and FMSPC carry visible markers, each refused under
Intel's root by itself; a policy must say ``allow_emulated`` besides.

Example::

    emulator = Emulator(now=now)
    quote = emulator.quote(report_data)
    verify(quote, emulator.bundle(), root=emulator.trust_root, now=now,
           policy=Policy(allow_emulated=True), report_data=report_data)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tdx.emulator.authority import (
    DAY_S,
    CertificateSpec,
    CrlSpec,
    Hierarchy,
    PckValues,
    build_hierarchy,
    issue,
    sgx_extension,
)
from tdx.emulator.documents import BundleRecipe, make_bundle, qe_identity, tcb_info
from tdx.emulator.quotes import QuoteFields, TdFields, make_quote
from tdx.quote import BodyType
from tdx.trust import TrustRoot

if TYPE_CHECKING:
    from tdx.collateral import Bundle

__all__ = ["Emulator"]

_VERSION_4 = 4


class Emulator:
    """Emulate one TDX platform and the authority behind it.

    Args:
        now: Unix seconds; certificates are valid for years around it, collateral from a day
            before to 29 days after.
        values: What the platform's PCK certificate says.
    """

    def __init__(self, *, now: int, values: PckValues | None = None) -> None:
        self.now = now
        self.hierarchy: Hierarchy = build_hierarchy(now, values)
        self._bundle: Bundle | None = None

    @property
    def root_der(self) -> bytes:
        """The root certificate, for descriptors and ``TrustRoot.emulated``."""
        return self.hierarchy.root.der

    @property
    def trust_root(self) -> TrustRoot:
        """The typed root under which this emulator's quotes verify."""
        return TrustRoot.emulated(self.root_der)

    def quote(self, report_data: bytes, *, version: int = 4, td: TdFields | None = None) -> bytes:
        """Make a quote over 64 bytes of report data.

        Args:
            report_data: 64 bytes.
            version: 4 (TD 1.0) or 5 (TD 1.5).
            td: Other fields of the body.
        """
        body = replace(td or TdFields(), report_data=report_data)
        kind = BodyType.TD10 if version == _VERSION_4 else BodyType.TD15
        return self.make(QuoteFields(version=version, kind=kind, td=body))

    def make(self, fields: QuoteFields) -> bytes:
        """Make a quote of any fields."""
        one = self.hierarchy
        return make_quote(fields, (one.pck, one.pck_ca, one.root))

    def bundle(self) -> Bundle:
        """Return the collateral by which its quotes verify, made once."""
        if self._bundle is None:
            self._bundle = make_bundle(self.recipe())
        return self._bundle

    def recipe(self, hierarchy: Hierarchy | None = None) -> BundleRecipe:
        """Return what the bundle is made of, to change and make another."""
        one = hierarchy or self.hierarchy
        issued_at, next_update = self.now - DAY_S, self.now + 29 * DAY_S
        return BundleRecipe(
            hierarchy=one,
            root_crl=CrlSpec(one.root, issued_at, next_update),
            pck_crl=CrlSpec(one.pck_ca, issued_at, next_update),
            tcb_info=tcb_info(issued_at, next_update),
            qe_identity=qe_identity(issued_at, next_update),
            tcb_info_chain=(one.tcb_signer, one.root),
            qe_identity_chain=(one.tcb_signer, one.root),
            pck_crl_chain=(one.pck_ca, one.root),
        )

    def another_platform(self, values: PckValues) -> Emulator:
        """Return a second machine under the same authority, with its own PCK certificate."""
        spec: CertificateSpec = replace(
            self.hierarchy.pck.spec, sgx_extension=sgx_extension(values)
        )
        other = object.__new__(Emulator)
        other.now = self.now
        other.hierarchy = replace(self.hierarchy, pck=issue(spec, self.hierarchy.pck_ca))
        other._bundle = self._bundle
        return other
