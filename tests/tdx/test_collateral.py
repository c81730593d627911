"""Trust roots, bundles, strict JSON, TCB Info, QE Identity and the algebra of statuses."""

from __future__ import annotations

import itertools
import json
from hashlib import sha256
from typing import Any

import pytest

from tdx.collateral import (
    Bundle,
    TcbStatus,
    converge,
    expiries,
    parse_qe_identity,
    parse_tcb_info,
    split_pem,
    status_with_relaunch,
)
from tdx.collateral.strict import load_object
from tdx.errors import Check, PolicyError, QuoteError
from tdx.trust import INTEL_ROOT_SHA256, TrustRoot
from tests.tdx import vectors

BUNDLES = {
    "dcapqvl_tdx_quote": ("b0c06f000000", 17, 2),
    "dcapqvl_tdx_quote_outdated": ("90c06f000000", 18, 3),
    "fb_gcp_2025": ("00806f050000", 18, 5),
    "gotdx_spr": ("50806f000000", 15, 2),
    "gotdx_v5": ("90c06f000000", 18, 3),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_real_bundles_parse_and_survive_a_round_trip(name: str) -> None:
    fmspc, number, levels = BUNDLES[name]
    bundle = Bundle.from_json(vectors.collateral(name))
    info = parse_tcb_info(bundle.tcb_info)
    assert (info.fmspc.hex(), info.evaluation_number, len(info.levels)) == (fmspc, number, levels)
    assert Bundle.from_json(bundle.to_json()) == bundle
    parts = expiries(bundle)
    assert len(parts) == 7
    assert parts["tcb_info"] == info.next_update


def test_sgx_collateral_is_refused() -> None:
    bundle = Bundle.from_json(vectors.collateral("dcapqvl_sgx_quote"))
    with pytest.raises(QuoteError) as caught:
        parse_tcb_info(bundle.tcb_info)
    assert caught.value.check is Check.TCB_INFO_FORMAT
    with pytest.raises(QuoteError) as caught:
        parse_qe_identity(bundle.qe_identity)
    assert caught.value.check is Check.QE_IDENTITY_FORMAT


JSON_REFUSED = {
    "repeated key": '{"a":1,"a":1}',
    "repeated key inside": '{"a":{"b":1,"b":2}}',
    "fraction": '{"a":1.0}',
    "exponent": '{"a":1e3}',
    "not a number": '{"a":NaN}',
    "infinity": '{"a":-Infinity}',
    "list": "[]",
    "two documents": "{}{}",
    "endless nesting": '{"a":' + "[" * 200_000,
    "endless number": '{"a":' + "9" * 5000 + "}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "empty": "",
}


@pytest.mark.parametrize("title", JSON_REFUSED)
def test_json_with_a_second_reading_is_refused(title: str) -> None:
    text = JSON_REFUSED[title]
    assert isinstance(text, str | bytes)
    with pytest.raises(QuoteError) as caught:
        load_object(text, Check.COLLATERAL_FORMAT)
    assert caught.value.check is Check.COLLATERAL_FORMAT


ZERO48 = "00" * 48


def tcb_info(**replaced: Any) -> str:  # noqa: ANN401 - any JSON value is the point
    level = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": 1}] * 16,
            "pcesvn": 5,
            "tdxtcbcomponents": [{"svn": 1}] * 16,
        },
        "tcbDate": "2024-01-01T00:00:00Z",
        "tcbStatus": "UpToDate",
    }
    signer = {"mrsigner": ZERO48, "attributes": "00" * 8, "attributesMask": "ff" * 8}
    fields: dict[str, Any] = {
        "id": "TDX",
        "version": 3,
        "issueDate": "2026-01-01T00:00:00Z",
        "nextUpdate": "2026-02-01T00:00:00Z",
        "fmspc": "00806f050000",
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 18,
        "tdxModule": signer,
        "tdxModuleIdentities": [
            {
                "id": "tdx_01",
                **signer,
                "tcbLevels": [
                    {
                        "tcb": {"isvsvn": 2},
                        "tcbDate": "2023-01-01T00:00:00Z",
                        "tcbStatus": "OutOfDate",
                    }
                ],
            }
        ],
        "tcbLevels": [level],
    }
    return json.dumps(fields | replaced)


def one_level(**replaced: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
    level = json.loads(tcb_info())["tcbLevels"][0]
    return [level | replaced]


def test_a_module_identity_is_found_whatever_its_case() -> None:
    assert list(parse_tcb_info(tcb_info()).module_identities) == ["TDX_01"]


def test_levels_are_judged_best_first_and_of_equals_the_worse_first() -> None:
    low = one_level(tcbStatus="OutOfDate")[0]
    low["tcb"]["sgxtcbcomponents"] = [{"svn": 0}] * 16
    best = one_level()[0]
    revoked = one_level(tcbStatus="Revoked")[0]
    levels = parse_tcb_info(tcb_info(tcbLevels=[low, best, revoked])).levels
    assert [level.status for level in levels] == ["Revoked", "UpToDate", "OutOfDate"]


def test_levels_of_modules_and_enclaves_are_judged_best_first() -> None:
    module = json.loads(tcb_info())["tdxModuleIdentities"][0]
    old = module["tcbLevels"][0]
    module["tcbLevels"] = [old, old | {"tcb": {"isvsvn": 7}}, old | {"tcbStatus": "Revoked"}]
    (levels,) = (
        one.levels
        for one in parse_tcb_info(tcb_info(tdxModuleIdentities=[module])).module_identities.values()
    )
    assert [(level.isvsvn, level.status) for level in levels] == [
        (7, "OutOfDate"),
        (2, "Revoked"),
        (2, "OutOfDate"),
    ]


TCB_INFO_REFUSED: dict[str, dict[str, Any]] = {
    "SGX": {"id": "SGX"},
    "version 2": {"version": 2},
    "type 1": {"tcbType": 1},
    "boolean type": {"tcbType": False},
    "short FMSPC": {"fmspc": "00806f0500"},
    "spaced FMSPC": {"fmspc": "00 06f 50000"},
    "date without zone": {"issueDate": "2026-01-01T00:00:00"},
    "impossible date": {"issueDate": "2026-02-30T00:00:00Z"},
    "date in the short form": {"issueDate": "20260101T000000Z"},
    "date with a space": {"issueDate": "2026-01-01 00:00:00Z"},
    "advisories as numbers": {"tcbLevels": one_level(advisoryIDs=["INTEL-SA-1", 2])},
    "negative number": {"tcbEvaluationDataNumber": -1},
    "unknown status": {"tcbLevels": one_level(tcbStatus="Excellent")},
    "eight components": {
        "tcbLevels": one_level(
            tcb={
                "sgxtcbcomponents": [{"svn": 1}] * 8,
                "pcesvn": 5,
                "tdxtcbcomponents": [{"svn": 1}] * 16,
            }
        )
    },
    "SVN of 256": {
        "tcbLevels": one_level(
            tcb={
                "sgxtcbcomponents": [{"svn": 256}] * 16,
                "pcesvn": 5,
                "tdxtcbcomponents": [{"svn": 1}] * 16,
            }
        )
    },
    "SVN of true": {
        "tcbLevels": one_level(
            tcb={
                "sgxtcbcomponents": [{"svn": True}] * 16,
                "pcesvn": 5,
                "tdxtcbcomponents": [{"svn": 1}] * 16,
            }
        )
    },
    "components without SVN": {
        "tcbLevels": one_level(
            tcb={
                "sgxtcbcomponents": [{}] * 16,
                "pcesvn": 5,
                "tdxtcbcomponents": [[]] * 16,
            }
        )
    },
    "one component without SVN": {
        "tcbLevels": one_level(
            tcb={
                "sgxtcbcomponents": [*[{"svn": 1}] * 15, {}],
                "pcesvn": 5,
                "tdxtcbcomponents": [{"svn": 1}] * 16,
            }
        )
    },
    "module twice": {"tdxModuleIdentities": json.loads(tcb_info())["tdxModuleIdentities"] * 2},
    "module without signer": {"tdxModuleIdentities": [{"id": "TDX_01", "tcbLevels": []}]},
    "advisories as text": {"tcbLevels": one_level(advisoryIDs="INTEL-SA-1")},
}


@pytest.mark.parametrize("title", TCB_INFO_REFUSED)
def test_misshapen_tcb_info_is_refused(title: str) -> None:
    with pytest.raises(QuoteError) as caught:
        parse_tcb_info(tcb_info(**TCB_INFO_REFUSED[title]))
    assert caught.value.check is Check.TCB_INFO_FORMAT


def test_qe_identity_of_another_version_is_refused() -> None:
    honest = Bundle.from_json(vectors.collateral("fb_gcp_2025")).qe_identity
    assert parse_qe_identity(honest).isvprodid == 2
    with pytest.raises(QuoteError) as caught:
        parse_qe_identity(honest.replace('"version":2', '"version":3'))
    assert caught.value.check is Check.QE_IDENTITY_FORMAT


def test_a_certificate_is_written_in_one_way() -> None:
    for text, fits in ((b"AQI=", True), (b"AQJ=", False), (b"AQI", False), (b"A=QI", False)):
        pem = b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"
        if fits:
            assert split_pem(pem, Check.CHAIN_SHAPE) == [b"\x01\x02"]
            continue
        with pytest.raises(QuoteError):
            split_pem(pem, Check.CHAIN_SHAPE)


def test_module_statuses_beyond_the_three_are_refused() -> None:
    module = json.loads(tcb_info())["tdxModuleIdentities"][0]
    module["tcbLevels"][0]["tcbStatus"] = "SWHardeningNeeded"
    with pytest.raises(QuoteError):
        parse_tcb_info(tcb_info(tdxModuleIdentities=[module]))


BUNDLE_REFUSED: dict[str, dict[str, Any]] = {
    "missing part": {"pck_crl": None},
    "odd hex": {"root_ca_crl": "abc"},
    "short signature": {"tcb_info_signature": "00" * 63},
    "lone surrogate": {"tcb_info": "\ud800"},
    "list": {"qe_identity": []},
}


@pytest.mark.parametrize("title", BUNDLE_REFUSED)
def test_misshapen_bundles_are_refused(title: str) -> None:
    fields = json.loads(vectors.collateral("fb_gcp_2025")) | BUNDLE_REFUSED[title]
    with pytest.raises(QuoteError) as caught:
        Bundle.from_json(json.dumps(fields))
    assert caught.value.check is Check.COLLATERAL_FORMAT


def test_a_bundle_over_the_cap_is_refused_unread() -> None:
    with pytest.raises(QuoteError) as caught:
        Bundle.from_json(b" " * (1024 * 1024 + 1))
    assert caught.value.check is Check.SIZE


def test_pem_chains_hold_certificates_and_nothing_else() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"
    assert split_pem(pem * 2 + b"\0", Check.CHAIN_SHAPE) == [b"\x01\x02\x03"] * 2
    for wrong in (b"x" + pem, pem + b"x", pem + b"\0" + pem, pem[:-10], pem.replace(b"AQID", b"A")):
        with pytest.raises(QuoteError):
            split_pem(wrong, Check.CHAIN_SHAPE)


def test_convergence_follows_the_table() -> None:
    good = TcbStatus.UP_TO_DATE
    old = TcbStatus.OUT_OF_DATE
    with_configuration = {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    }
    for platform in TcbStatus:
        assert converge(platform, [good, good]) is platform
        assert converge(platform, [good, TcbStatus.REVOKED]) is TcbStatus.REVOKED
        if platform is not TcbStatus.REVOKED:
            expected = (
                TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
                if platform in with_configuration
                else old
            )
            assert converge(platform, [good, old]) is expected


def test_convergence_never_improves_on_a_part() -> None:
    parts = (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)
    for platform, module, enclave in itertools.product(TcbStatus, parts, parts):
        result = converge(platform, [module, enclave])
        assert result.severity >= max(platform.severity, module.severity, enclave.severity)


def test_relaunch_is_advised_only_where_it_would_help() -> None:
    assert status_with_relaunch(TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE) == "TDRelaunchAdvised"
    assert (
        status_with_relaunch(TcbStatus.OUT_OF_DATE, TcbStatus.CONFIGURATION_NEEDED)
        == "TDRelaunchAdvisedConfigurationNeeded"
    )
    for launch in TcbStatus:
        assert status_with_relaunch(launch, TcbStatus.OUT_OF_DATE) is launch
        assert status_with_relaunch(launch, TcbStatus.REVOKED) is launch
    assert status_with_relaunch(TcbStatus.REVOKED, TcbStatus.UP_TO_DATE) is TcbStatus.REVOKED


def test_trust_roots_are_pinned_closed_and_told_apart() -> None:
    root = vectors.other("trust/intel_sgx_root_ca.der")
    assert sha256(root).digest() == INTEL_ROOT_SHA256
    intel = TrustRoot.intel()
    assert intel == TrustRoot.intel()
    assert not intel.is_emulated
    assert len(intel.digest()) == 32
    with pytest.raises(PolicyError):
        TrustRoot("intel", bytes(32))
    for unmarked in (root, vectors.other("mock/flashbots_mock_root_ca.der"), b"junk"):
        with pytest.raises(PolicyError):
            TrustRoot.emulated(unmarked)
