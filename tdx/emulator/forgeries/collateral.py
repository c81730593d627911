"""Forgeries of TCB Info and QE Identity, and platforms that genuine collateral condemns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tdx.emulator.authority import DAY_S, PckValues
from tdx.emulator.documents import isv_level, platform_level, sign_raw
from tdx.emulator.forgeries.base import V5, Forgery, Mutations
from tdx.emulator.quotes import QuoteFields, TdFields
from tdx.errors import Check
from tdx.trust import EMULATED_FMSPC_PREFIX

if TYPE_CHECKING:
    from tdx.collateral import Bundle

__all__ = ["DocumentMutations", "DocumentTimeMutations", "ModuleMutations", "PlatformMutations"]


_FIRST_SVN = bytes([5, 0, *([2] * 14)])


class DocumentMutations(Mutations):
    """Documents that say something else than was signed, or something nobody may sign."""

    def tcb_info_edited(self) -> Forgery:
        """Change one digit of TCB Info."""
        honest = self._emulator.bundle()
        text = honest.tcb_info.replace('"pcesvn":11', '"pcesvn":10')
        return self._forge(Check.TCB_INFO_SIGNATURE, bundle=replace(honest, tcb_info=text))

    def tcb_info_white_space(self) -> Forgery:
        """Add white space that parses to the same."""
        honest = self._emulator.bundle()
        return self._forge(
            Check.TCB_INFO_SIGNATURE, bundle=replace(honest, tcb_info=honest.tcb_info + " ")
        )

    def qe_identity_edited(self) -> Forgery:
        """Change one digit of QE Identity."""
        honest = self._emulator.bundle()
        text = honest.qe_identity.replace('"isvprodid":2', '"isvprodid":3')
        return self._forge(Check.QE_IDENTITY_SIGNATURE, bundle=replace(honest, qe_identity=text))

    def signatures_swapped(self) -> Forgery:
        """Show each document with the other's signature."""
        honest = self._emulator.bundle()
        bundle = replace(
            honest,
            tcb_info_signature=honest.qe_identity_signature,
            qe_identity_signature=honest.tcb_info_signature,
        )
        return self._forge(Check.TCB_INFO_SIGNATURE, bundle=bundle)

    def documents_swapped(self) -> Forgery:
        """Show QE Identity, well signed, as TCB Info."""
        honest = self._emulator.bundle()
        bundle = replace(
            honest,
            tcb_info=honest.qe_identity,
            tcb_info_signature=honest.qe_identity_signature,
        )
        return self._forge(Check.TCB_INFO_FORMAT, bundle=bundle)

    def tcb_info_of_sgx(self) -> Forgery:
        """Sign TCB Info for SGX."""
        return self._forge(Check.TCB_INFO_FORMAT, bundle=self._with_tcb_info(id="SGX"))

    def tcb_info_of_another_version(self) -> Forgery:
        """Sign TCB Info of version 2."""
        return self._forge(Check.TCB_INFO_FORMAT, bundle=self._with_tcb_info(version=2))

    def tcb_info_of_another_type(self) -> Forgery:
        """Sign TCB Info whose levels compare in another way."""
        return self._forge(Check.TCB_INFO_FORMAT, bundle=self._with_tcb_info(tcbType=1))

    def tcb_info_key_twice(self) -> Forgery:
        """Sign TCB Info with two evaluation numbers."""
        text = self._emulator.bundle().tcb_info
        twice = text.replace('"tcbType":0', '"tcbType":0,"tcbEvaluationDataNumber":99')
        return self._forge(Check.TCB_INFO_FORMAT, bundle=self._signed(twice))

    def components_missing(self) -> Forgery:
        """Sign a level with eight components, so that the rest is compared with nothing."""
        level = json.loads(json.dumps(platform_level()))
        del level["tcb"]["tdxtcbcomponents"][8:]
        return self._forge(Check.TCB_INFO_FORMAT, bundle=self._with_tcb_info(tcbLevels=[level]))

    def status_unknown(self) -> Forgery:
        """Sign a level with a status nobody knows."""
        return self._forge(
            Check.TCB_INFO_FORMAT,
            bundle=self._with_tcb_info(tcbLevels=[platform_level("Excellent")]),
        )

    def qe_identity_of_sgx(self) -> Forgery:
        """Sign the identity of the SGX quoting enclave."""
        return self._forge(Check.QE_IDENTITY_FORMAT, bundle=self._with_qe_identity(id="QE"))

    def _signed(self, text: str) -> Bundle:
        signature = sign_raw(self._one.tcb_signer.key, text.encode())
        return replace(self._emulator.bundle(), tcb_info=text, tcb_info_signature=signature)


class DocumentTimeMutations(Mutations):
    """Documents shown before or after their time."""

    def tcb_info_expired(self) -> Forgery:
        """Let TCB Info lapse a second ago."""
        dates = self._dates(next_update=self._now - 1)
        return self._forge(Check.TCB_INFO_TIME, bundle=self._with_tcb_info(**dates))

    def tcb_info_from_the_future(self) -> Forgery:
        """Issue TCB Info in a second."""
        dates = self._dates(issued_at=self._now + 1)
        return self._forge(Check.TCB_INFO_TIME, bundle=self._with_tcb_info(**dates))

    def qe_identity_expired(self) -> Forgery:
        """Let QE Identity lapse a second ago."""
        dates = self._dates(next_update=self._now - 1)
        return self._forge(Check.QE_IDENTITY_TIME, bundle=self._with_qe_identity(**dates))

    def qe_identity_from_the_future(self) -> Forgery:
        """Issue QE Identity in a second."""
        dates = self._dates(issued_at=self._now + 1)
        return self._forge(Check.QE_IDENTITY_TIME, bundle=self._with_qe_identity(**dates))

    def _dates(
        self, issued_at: int | None = None, next_update: int | None = None
    ) -> Mapping[str, object]:
        return {
            "issueDate": _iso(issued_at or self._now - DAY_S),
            "nextUpdate": _iso(next_update or self._now + DAY_S),
        }


class PlatformMutations(Mutations):
    """Platforms that the collateral does not cover, or covers and condemns."""

    def fmspc_of_another_platform(self) -> Forgery:
        """Show TCB Info of another platform."""
        other = (EMULATED_FMSPC_PREFIX + b"\x07").hex()
        return self._forge(Check.FMSPC, bundle=self._with_tcb_info(fmspc=other))

    def pceid_of_another_platform(self) -> Forgery:
        """Show TCB Info of another PCE."""
        return self._forge(Check.PCEID, bundle=self._with_tcb_info(pceId="0001"))

    def pcesvn_below_every_level(self) -> Forgery:
        """Run an old provisioning certification enclave."""
        other = self._emulator.another_platform(PckValues(pcesvn=10))
        return self._forge(Check.TCB_LEVEL, quote=other.make(QuoteFields()))

    def component_below_every_level(self) -> Forgery:
        """Leave the last SGX component at zero."""
        svns = (*((3,) * 15), 0)
        other = self._emulator.another_platform(PckValues(component_svns=svns))
        return self._forge(Check.TCB_LEVEL, quote=other.make(QuoteFields()))

    def tdx_component_below_every_level(self) -> Forgery:
        """Leave the last TDX component at zero."""
        svn = bytes([5, 1, *([2] * 13), 0])
        return self._forge(Check.TCB_LEVEL, QuoteFields(td=TdFields(tee_tcb_svn=svn)))

    def no_level(self) -> Forgery:
        """Sign TCB Info without any level."""
        return self._forge(Check.TCB_LEVEL, bundle=self._with_tcb_info(tcbLevels=[]))

    def out_of_date(self) -> Forgery:
        """Reach an out-of-date level only."""
        other = self._emulator.another_platform(PckValues(component_svns=(1,) * 16))
        return self._forge(Check.TCB_STATUS, quote=other.make(QuoteFields()), status="OutOfDate")

    def revoked(self) -> Forgery:
        """Reach a revoked level."""
        return self._level("Revoked", "Revoked")

    def configuration_needed(self) -> Forgery:
        """Reach a level that needs configuration."""
        return self._level("ConfigurationNeeded", "ConfigurationNeeded")

    def software_hardening_needed(self) -> Forgery:
        """Reach a level that needs hardened software."""
        return self._level("SWHardeningNeeded", "SWHardeningNeeded")

    def _level(self, status: str, expected: str) -> Forgery:
        bundle = self._with_tcb_info(tcbLevels=[platform_level(status)])
        return self._forge(Check.TCB_STATUS, bundle=bundle, status=expected)


class ModuleMutations(Mutations):
    """TDX modules that are unknown, foreign, old or revoked."""

    def unknown(self) -> Forgery:
        """Run a module of a major version without identity."""
        svn = bytes([5, 9, *([2] * 14)])
        return self._forge(Check.MODULE_IDENTITY, QuoteFields(td=TdFields(tee_tcb_svn=svn)))

    def identity_missing(self) -> Forgery:
        """Sign TCB Info without module identities."""
        return self._forge(
            Check.MODULE_IDENTITY, bundle=self._with_tcb_info(tdxModuleIdentities=[])
        )

    def foreign_signer(self) -> Forgery:
        """Run a module somebody else signed."""
        td = TdFields(mrsignerseam=b"\x01" * 48)
        return self._forge(Check.MODULE_SIGNER, QuoteFields(td=td))

    def attributes(self) -> Forgery:
        """Run a module with attributes."""
        td = TdFields(seam_attributes=b"\x01" + bytes(7))
        return self._forge(Check.SEAM_ATTRIBUTES, QuoteFields(td=td))

    def attributes_beyond_the_mask(self) -> Forgery:
        """Run a module with attributes that its identity does not look at."""
        bundle = self._with_module_levels(isv_level(4), attributesMask="00" * 8)
        td = TdFields(seam_attributes=b"\x01" + bytes(7))
        return self._forge(Check.SEAM_ATTRIBUTES, QuoteFields(td=td), bundle=bundle)

    def attributes_missing(self) -> Forgery:
        """Run a module without the attributes that its identity asks for."""
        bundle = self._with_module_levels(isv_level(4), attributes="01" + "00" * 7)
        return self._forge(Check.SEAM_ATTRIBUTES, bundle=bundle)

    def below_every_level(self) -> Forgery:
        """Run a module older than every level."""
        svn = bytes([1, 1, *([2] * 14)])
        return self._forge(Check.TCB_LEVEL, QuoteFields(td=TdFields(tee_tcb_svn=svn)))

    def out_of_date(self) -> Forgery:
        """Run an out-of-date module on an up-to-date platform."""
        svn = bytes([3, 1, *([2] * 14)])
        return self._forge(
            Check.TCB_STATUS, QuoteFields(td=TdFields(tee_tcb_svn=svn)), status="OutOfDate"
        )

    def revoked(self) -> Forgery:
        """Run a revoked module on an up-to-date platform."""
        bundle = self._with_module_levels(isv_level(2, "Revoked"))
        return self._forge(Check.TCB_STATUS, bundle=bundle, status="Revoked")

    def relaunch_advised(self) -> Forgery:
        """Launch on an old module that has been updated since (TD 1.5)."""
        td = TdFields(tee_tcb_svn=bytes([3, 1, *([2] * 14)]))
        return self._forge(Check.TCB_STATUS, replace(V5, td=td), status="TDRelaunchAdvised")

    def current_revoked(self) -> Forgery:
        """Launch on an old module and run on a revoked one (TD 1.5)."""
        td = TdFields(
            tee_tcb_svn=bytes([3, 1, *([2] * 14)]), tee_tcb_svn2=bytes([5, 1, *([2] * 14)])
        )
        bundle = self._with_module_levels(isv_level(4, "Revoked"), isv_level(2, "OutOfDate"))
        return self._forge(Check.TCB_STATUS, replace(V5, td=td), bundle=bundle, status="Revoked")

    def current_unknown(self) -> Forgery:
        """Run on a current module without identity (TD 1.5)."""
        td = TdFields(tee_tcb_svn2=bytes([5, 9, *([2] * 14)]))
        return self._forge(Check.MODULE_IDENTITY, replace(V5, td=td))

    def _with_module_levels(self, *levels: Mapping[str, object], **changes: object) -> Bundle:
        identity = {
            "id": "TDX_01",
            "mrsigner": "00" * 48,
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
            "tcbLevels": list(levels),
            **changes,
        }
        return self._with_tcb_info(tdxModuleIdentities=[identity])


class FirstModuleMutations(Mutations):
    """TDX modules of major version 0, which the platform's levels judge and no identity."""

    def foreign_signer(self) -> Forgery:
        """Run a module somebody else signed."""
        td = TdFields(tee_tcb_svn=_FIRST_SVN, mrsignerseam=b"\x01" * 48)
        return self._forge(Check.MODULE_SIGNER, QuoteFields(td=td))

    def attributes(self) -> Forgery:
        """Run a module with attributes."""
        td = TdFields(tee_tcb_svn=_FIRST_SVN, seam_attributes=b"\x01" + bytes(7))
        return self._forge(Check.SEAM_ATTRIBUTES, QuoteFields(td=td))

    def below_every_level(self) -> Forgery:
        """Run a module older than every level."""
        level = platform_level(module_svn=_FIRST_SVN[0] + 1)
        return self._forge(
            Check.TCB_LEVEL,
            QuoteFields(td=TdFields(tee_tcb_svn=_FIRST_SVN)),
            bundle=self._with_tcb_info(tcbLevels=[level]),
        )


def _iso(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
