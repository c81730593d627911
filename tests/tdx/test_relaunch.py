"""TD 1.5: the status at launch and that of the module loaded now, beside the second verifier."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from tdx.collateral import Bundle, TcbStatus
from tdx.emulator import QuoteFields, TdFields, make_bundle
from tdx.emulator.documents import isv_level, platform_level
from tdx.emulator.forgeries.base import V5
from tdx.errors import Check, QuoteError
from tests.tdx.forged import emulator, judge, oracle_status
from tests.tdx.test_forgeries import ALL_ACCEPTED, PARTS, PLATFORM


def svn(module: int, microcode: int) -> bytes:
    return bytes([module, 1, microcode, *([2] * 13)])


def agreed(quote: bytes, bundle: Bundle) -> str | None:
    """The status both verifiers reach, or None if both refuse; they must not differ."""
    theirs = oracle_status(quote, bundle, emulator().root_der)
    try:
        ours = str(judge(quote, bundle, policy=ALL_ACCEPTED).assessment.status)
    except QuoteError as error:
        assert error.status == "Revoked" or error.check is Check.TCB_LEVEL  # noqa: PT017 - either
        ours = None
    assert ours == theirs
    return ours


@pytest.mark.parametrize("platform", PLATFORM)
def test_a_module_updated_under_a_running_td(platform: TcbStatus) -> None:
    one = emulator()
    recipe = one.recipe()
    quote = one.make(replace(V5, td=TdFields(tee_tcb_svn=svn(3, 2), tee_tcb_svn2=svn(5, 2))))
    for old, new, enclave in itertools.product(PARTS, PARTS, PARTS):
        identity = {
            "id": "TDX_01",
            "mrsigner": "00" * 48,
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
            "tcbLevels": [isv_level(5, new), isv_level(2, old)],
        }
        info = {
            **recipe.tcb_info,
            "tdxModuleIdentities": [identity],
            "tcbLevels": [platform_level(platform)],
        }
        qe = {**recipe.qe_identity, "tcbLevels": [isv_level(2, enclave)]}
        agreed(quote, make_bundle(replace(recipe, tcb_info=info, qe_identity=qe)))


@pytest.mark.parametrize("now", PLATFORM)
def test_a_platform_updated_under_a_running_td(now: TcbStatus) -> None:
    one = emulator()
    recipe = one.recipe()
    quote = one.make(replace(V5, td=TdFields(tee_tcb_svn=svn(5, 1), tee_tcb_svn2=svn(5, 2))))
    for launch in PLATFORM:
        lower = json.loads(json.dumps(platform_level(launch)))
        lower["tcb"]["tdxtcbcomponents"][2]["svn"] = 1
        info = {**recipe.tcb_info, "tcbLevels": [platform_level(now), lower]}
        status = agreed(quote, make_bundle(replace(recipe, tcb_info=info)))
        if launch is TcbStatus.UP_TO_DATE and now is not TcbStatus.REVOKED:
            assert status == "UpToDate"
        if (launch, now) == (TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE):
            assert status == "TDRelaunchAdvised"


@pytest.mark.parametrize(
    ("major", "asked", "passes"), [(0, 4, True), (0, 5, True), (0, 6, False), (1, 6, True)]
)
def test_a_modules_own_svn_is_judged_by_the_platform_level_only_at_major_version_0(
    major: int, asked: int, passes: bool
) -> None:
    one = emulator()
    recipe = one.recipe()
    levels = [platform_level(module_svn=asked)]
    bundle = make_bundle(replace(recipe, tcb_info={**recipe.tcb_info, "tcbLevels": levels}))
    td = TdFields(tee_tcb_svn=bytes([5, major, *([2] * 14)]))
    assert agreed(one.make(QuoteFields(td=td)), bundle) == ("UpToDate" if passes else None)


def test_a_module_of_major_version_0_needs_no_identity() -> None:
    one = emulator()
    recipe = one.recipe()
    plain = {key: value for key, value in recipe.tcb_info.items() if key != "tdxModuleIdentities"}
    td = TdFields(tee_tcb_svn=bytes([0, 0, *([2] * 14)]))
    verdict = judge(one.make(QuoteFields(td=td)), make_bundle(replace(recipe, tcb_info=plain)))
    assert verdict.assessment.status == "UpToDate"


def test_the_date_is_that_of_the_oldest_level_at_launch() -> None:
    one = emulator()
    old, new = svn(3, 2), svn(5, 2)
    dates = {
        judge(one.make(replace(V5, td=td)), policy=ALL_ACCEPTED).assessment.tcb_date
        for td in (
            TdFields(tee_tcb_svn=old, tee_tcb_svn2=old),
            TdFields(tee_tcb_svn=old, tee_tcb_svn2=new),
        )
    }
    (launched_old,) = dates
    assert launched_old < judge(one.make(V5)).assessment.tcb_date


def test_identities_are_numbered_in_hexadecimal_of_any_case() -> None:
    one = emulator()
    recipe = one.recipe()
    for name in ("TDX_0A", "tdx_0a"):
        identity = {
            "id": name,
            "mrsigner": "00" * 48,
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
            "tcbLevels": [isv_level(4)],
        }
        info = {**recipe.tcb_info, "tdxModuleIdentities": [identity]}
        td = TdFields(tee_tcb_svn=bytes([5, 10, *([2] * 14)]))
        bundle = make_bundle(replace(recipe, tcb_info=info))
        assert judge(one.make(QuoteFields(td=td)), bundle).assessment.status == "UpToDate"
