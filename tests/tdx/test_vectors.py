"""Real quotes and collateral reach the verdicts that were measured for them, in both verifiers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tdx.collateral import Bundle, expiries
from tdx.errors import Check, PolicyError, QuoteError
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import Verdict, verify
from tests.tdx import vectors

if TYPE_CHECKING:
    from types import ModuleType

ADVISORIES = (
    "INTEL-SA-01010",
    "INTEL-SA-01036",
    "INTEL-SA-01076",
    "INTEL-SA-01079",
    "INTEL-SA-01099",
    "INTEL-SA-01103",
    "INTEL-SA-01111",
)


@dataclass(frozen=True)
class Pair:
    quote: str
    collateral: str
    at: str
    status: str | None
    check: Check | None
    oracle_accepts: bool

    @property
    def now(self) -> int:
        return int(datetime.fromisoformat(self.at).timestamp())


PAIRS = {
    "v4 up to date": Pair(
        "dcapqvl_tdx_quote",
        "dcapqvl_tdx_quote",
        "2025-06-19T10:33:27Z",
        "UpToDate",
        None,
        oracle_accepts=True,
    ),
    "v5 below every level": Pair(
        "dcapqvl_tdx_quote_outdated",
        "dcapqvl_tdx_quote_outdated",
        "2026-02-18T10:59:51Z",
        None,
        Check.TCB_LEVEL,
        oracle_accepts=False,
    ),
    "v5 with CRLs long expired": Pair(
        "dcapqvl_tdx_quote_outdated",
        "gotdx_v5",
        "2026-02-01T14:50:26Z",
        None,
        Check.ROOT_CRL_TIME,
        oracle_accepts=False,
    ),
    "SGX quote": Pair(
        "dcapqvl_sgx_quote",
        "dcapqvl_sgx_quote",
        "2025-06-19T10:57:11Z",
        None,
        Check.VERSION,
        oracle_accepts=True,  # it verifies SGX too; this verifier is for TDX alone
    ),
    "tappd below every level": Pair(
        "dcapqvl_tappd",
        "dcapqvl_tdx_quote",
        "2025-06-19T10:33:27Z",
        None,
        Check.TCB_LEVEL,
        oracle_accepts=False,
    ),
    "junk after the quote": Pair(
        "gotdx_spr_v4",
        "gotdx_spr",
        "2023-06-18T08:43:58Z",
        None,
        Check.TRAILING_BYTES,
        oracle_accepts=False,
    ),
    "v5 up to date": Pair(
        "gotdx_v5",
        "dcapqvl_tdx_quote_outdated",
        "2026-02-18T10:59:51Z",
        "UpToDate",
        None,
        oracle_accepts=True,
    ),
    "v5 with its own expired CRLs": Pair(
        "gotdx_v5",
        "gotdx_v5",
        "2026-02-01T14:50:26Z",
        None,
        Check.ROOT_CRL_TIME,
        oracle_accepts=False,
    ),
    "GCP out of date": Pair(
        "gotdx_cos113",
        "fb_gcp_2025",
        "2026-01-27T09:50:59Z",
        "OutOfDate",
        Check.TCB_STATUS,
        oracle_accepts=True,  # it returns the status and leaves the refusal to its caller
    ),
    "GCP up to date": Pair(
        "fb_gcp_2025",
        "fb_gcp_2025",
        "2026-01-27T09:50:59Z",
        "UpToDate",
        None,
        oracle_accepts=True,
    ),
}


def judge(pair: Pair, *, now: int | None = None, policy: Policy | None = None) -> Verdict:
    return verify(
        vectors.quote(pair.quote),
        Bundle.from_json(vectors.collateral(pair.collateral)),
        root=TrustRoot.intel(),
        now=pair.now if now is None else now,
        policy=policy,
    )


@pytest.mark.requirement("D4")
@pytest.mark.parametrize("title", PAIRS)
def test_expected_verdicts(title: str) -> None:
    pair = PAIRS[title]
    if pair.check is None:
        verdict = judge(pair)
        assert verdict.assessment.status == pair.status
        assert verdict.assessment.advisories == ()
        assert not verdict.assessment.emulated
        assert not verdict.report_data_checked
        return
    with pytest.raises(QuoteError) as caught:
        judge(pair)
    assert (caught.value.check, caught.value.status) == (pair.check, pair.status)


# What the index says in words of the prototype, and which check that is here; where this verifier
# refuses earlier than the prototype did, the earlier check.
EARLIER = {
    ("dcapqvl_sgx_quote", "dcapqvl_sgx_quote"): Check.VERSION,
    ("gotdx_spr_v4", "gotdx_spr"): Check.TRAILING_BYTES,
}
WORDS = {"No matching TCB level": Check.TCB_LEVEL, "crl time": Check.ROOT_CRL_TIME}


def index_rows() -> list[list[str]]:
    text = vectors.other("INDEX.md").decode().partition("## Expected verdicts")[2]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() != "quote"]


def test_the_pairs_are_those_of_the_index_and_so_are_their_verdicts() -> None:
    expected = {}
    for quote, collateral, at, _, ours, _ in index_rows():
        words = ours.removeprefix("REJECT: ")
        check = EARLIER.get((quote, collateral), WORDS.get(words))
        if words == "OutOfDate":
            check = Check.TCB_STATUS
        assert check is not None or words == "UpToDate", words
        expected[quote, collateral, at] = check
    assert {(one.quote, one.collateral, one.at): one.check for one in PAIRS.values()} == expected


def test_every_pair_is_refused_after_its_window() -> None:
    windows = {
        row[0].rpartition("/")[2].removesuffix(".json"): row[-1].split(" .. ")[1]
        for line in vectors.other("INDEX.md").decode().splitlines()
        if line.startswith("| collateral/")
        for row in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    for title, pair in PAIRS.items():
        ends = int(datetime.fromisoformat(windows[pair.collateral].partition(" ")[0]).timestamp())
        if pair.check not in (None, Check.TCB_STATUS):
            continue
        assert judge(pair, now=ends, policy=Policy().accept("OutOfDate")).expires_at == ends, title
        with pytest.raises(QuoteError) as caught:
            judge(pair, now=ends + 1)
        assert caught.value.check in (
            Check.PCK_CRL_TIME,
            Check.TCB_INFO_TIME,
            Check.QE_IDENTITY_TIME,
        )


@pytest.fixture(scope="module")
def oracle() -> ModuleType:
    module: ModuleType = pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed")
    return module


@pytest.mark.parametrize("title", PAIRS)
def test_the_second_verifier_agrees_on_every_pair(title: str, oracle: ModuleType) -> None:
    pair = PAIRS[title]
    collateral = oracle.QuoteCollateralV3.from_json(vectors.collateral(pair.collateral).decode())
    try:
        status = oracle.verify(vectors.quote(pair.quote), collateral, pair.now).status
    except ValueError:
        status = None
    assert (status is not None) == pair.oracle_accepts
    if pair.check is None or pair.status is not None:
        assert status == pair.status


def test_a_policy_may_accept_an_out_of_date_platform_and_learns_its_advisories() -> None:
    verdict = judge(PAIRS["GCP out of date"], policy=Policy().accept("OutOfDate"))
    assert verdict.assessment.advisories == ADVISORIES
    with pytest.raises(QuoteError) as caught:
        judge(
            PAIRS["GCP out of date"],
            policy=Policy(deny_advisories=frozenset({"INTEL-SA-01099"})).accept("OutOfDate"),
        )
    assert caught.value.check is Check.ADVISORY


@pytest.mark.parametrize("title", [name for name, pair in PAIRS.items() if pair.check is None])
def test_collateral_lapses_to_the_second(title: str) -> None:
    pair = PAIRS[title]
    verdict = judge(pair)
    parts = expiries(Bundle.from_json(vectors.collateral(pair.collateral)))
    assert verdict.expires_at == min(parts.values())
    assert judge(pair, now=verdict.expires_at).verified_at == verdict.expires_at
    for now in (verdict.expires_at + 1, verdict.assessment.issued_at - 1, 0):
        with pytest.raises(QuoteError) as caught:
            judge(pair, now=now)
        assert caught.value.check.endswith("_time")


def test_a_root_with_intels_name_and_another_key_is_refused() -> None:
    genuine = vectors.quote("dcapqvl_tdx_quote")
    chain = vectors.other("intel-nonprod/tcbSignChain.pem").decode()
    impostor = vectors.other("intel-nonprod/trustedRootCaCert.pem").decode()
    assert impostor.strip() in chain
    fields = Bundle.from_json(vectors.collateral("dcapqvl_tdx_quote"))
    for part in ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"):
        forged = Bundle(
            **{name: getattr(fields, name) for name in fields.__slots__} | {part: chain}
        )
        with pytest.raises(QuoteError) as caught:
            verify(genuine, forged, root=TrustRoot.intel(), now=PAIRS["v4 up to date"].now)
        assert caught.value.check is Check.ROOT_PIN


def test_the_impostors_own_quote_is_refused_even_with_its_chain_in_pem() -> None:
    raw = vectors.other("intel-nonprod/quote.dat")
    fields = Bundle.from_json(vectors.collateral("dcapqvl_tdx_quote"))
    now = PAIRS["v4 up to date"].now
    with pytest.raises(QuoteError) as caught:
        verify(raw, fields, root=TrustRoot.intel(), now=now)
    assert caught.value.check is Check.CHAIN_SHAPE
    pem = vectors.other("intel-nonprod/pckCert.pem") + vectors.other(
        "intel-nonprod/pckSignChain.pem"
    )
    inner = 636 + 64 + 64 + 6 + 384 + 64 + 2
    section = raw[636 : inner + 2] + len(pem).to_bytes(4, "little") + pem
    size = len(section) - 134
    section = section[:130] + size.to_bytes(4, "little") + section[134:]
    repacked = raw[:632] + len(section).to_bytes(4, "little") + section
    with pytest.raises(QuoteError) as caught:
        verify(repacked, fields, root=TrustRoot.intel(), now=now)
    assert caught.value.check in (Check.ROOT_PIN, Check.CHAIN_SHAPE)


def test_mock_collateral_is_refused_under_intels_root() -> None:
    bundle = Bundle.from_json(vectors.other("mock/flashbots_mock_collateral.json"))
    with pytest.raises(QuoteError) as caught:
        verify(
            vectors.quote("fb_gcp_2025"),
            bundle,
            root=TrustRoot.intel(),
            now=PAIRS["GCP up to date"].now,
        )
    assert caught.value.check is Check.ROOT_PIN


def test_report_data_is_compared_in_full() -> None:
    pair = PAIRS["v4 up to date"]
    found = judge(pair).report.report_data
    bundle = Bundle.from_json(vectors.collateral(pair.collateral))
    raw = vectors.quote(pair.quote)

    def with_expected(expected: bytes) -> Verdict:
        return verify(raw, bundle, root=TrustRoot.intel(), now=pair.now, report_data=expected)

    assert with_expected(found).report_data_checked
    for at in (0, 31, 32, 63):
        wrong = bytearray(found)
        wrong[at] ^= 1
        with pytest.raises(QuoteError) as caught:
            with_expected(bytes(wrong))
        assert caught.value.check is Check.REPORT_DATA
    with pytest.raises(PolicyError):
        with_expected(found[:32])


def test_a_verdict_cannot_be_made_by_hand() -> None:
    verdict = judge(PAIRS["v4 up to date"])
    with pytest.raises(TypeError, match=r"tdx\.verify\.verify"):
        Verdict(
            verdict.root,
            verdict.report,
            verdict.assessment,
            bytes(32),
            report_data_checked=True,
            policy_digest=bytes(32),
            marks=verdict.marks,
            verified_at=0,
            seal=None,
        )
