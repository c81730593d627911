"""What a forgery is, and how the groups of them are made from one emulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tdx.emulator.documents import BundleRecipe, make_bundle
from tdx.emulator.quotes import QuoteFields, make_quote
from tdx.quote import BodyType

if TYPE_CHECKING:
    from tdx.collateral import Bundle
    from tdx.emulator.authority import CertificateSpec, Issued
    from tdx.emulator.emulator import Emulator
    from tdx.errors import Check
    from tdx.trust import TrustRoot

__all__ = ["V5", "Forgery", "Mutations"]

V5 = QuoteFields(version=5, kind=BodyType.TD15)


@dataclass(frozen=True, slots=True)
class Forgery:
    """Hold a quote and collateral with one thing wrong, and the check that must see it.

    Attributes:
        check: The check that must fail.
        quote: The quote.
        bundle: The collateral.
        root: The root it is judged under.
        root_der: The same root for another verifier.
        now: Unix seconds.
        status: TCB status that must come with the refusal, if any.
        report_data: What the verifier expects, if anything.
    """

    check: Check
    quote: bytes = field(repr=False)
    bundle: Bundle = field(repr=False)
    root: TrustRoot
    root_der: bytes = field(repr=False)
    now: int
    status: str | None = None
    report_data: bytes | None = None


class Mutations:
    """Make forgeries; every public method of a child is one.

    Args:
        emulator: The honest platform and authority they start from.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._one = emulator.hierarchy
        self._now = emulator.now

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the mutations of this group."""
        return [name for name in vars(cls) if not name.startswith("_")]

    def named(self, name: str) -> Callable[[], Forgery]:
        """Return the mutation called ``name``."""
        made: Callable[[], Forgery] = getattr(self, name)
        return made

    def _forge(
        self,
        check: Check,
        fields: QuoteFields | None = None,
        *,
        bundle: Bundle | None = None,
        quote: bytes | None = None,
        status: str | None = None,
        report_data: bytes | None = None,
    ) -> Forgery:
        return Forgery(
            check=check,
            quote=self._emulator.make(fields or QuoteFields()) if quote is None else quote,
            bundle=bundle or self._emulator.bundle(),
            root=self._emulator.trust_root,
            root_der=self._emulator.root_der,
            now=self._now,
            status=status,
            report_data=report_data,
        )

    def _recipe(self) -> BundleRecipe:
        return self._emulator.recipe()

    def _with_tcb_info(self, **fields: object) -> Bundle:
        recipe = self._recipe()
        return make_bundle(replace(recipe, tcb_info={**recipe.tcb_info, **fields}))

    def _with_qe_identity(self, **fields: object) -> Bundle:
        recipe = self._recipe()
        return make_bundle(replace(recipe, qe_identity={**recipe.qe_identity, **fields}))

    def _by(self, *chain: Issued, fields: QuoteFields | None = None) -> bytes:
        """Make a quote whose PCK chain, and so whose PCK key, is another."""
        leaf = chain[0]
        pem = "".join(one.pem for one in chain).encode()
        whole = replace(fields or QuoteFields(), chain=pem)
        return make_quote(whole, (leaf, self._one.pck_ca, self._one.root))

    def _pck_spec(self, **changes: object) -> CertificateSpec:
        return _changed(self._one.pck.spec, changes)

    def _ca_spec(self, **changes: object) -> CertificateSpec:
        return _changed(self._one.pck_ca.spec, changes)

    def _root_spec(self, **changes: object) -> CertificateSpec:
        return _changed(self._one.root.spec, changes)

    def _signer_spec(self, **changes: object) -> CertificateSpec:
        return _changed(self._one.tcb_signer.spec, changes)


def _changed(spec: CertificateSpec, changes: Mapping[str, object]) -> CertificateSpec:
    return replace(spec, **changes)  # type: ignore[arg-type] # names of its fields, from this package


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    """Return ``data`` with one bit turned over."""
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)
