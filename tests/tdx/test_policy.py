"""Policies: what they refuse, their digest and their TOML form."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from tdx.collateral import TcbStatus
from tdx.errors import Check, PolicyError, QuoteError
from tdx.policy import Assessment, BitRule, Measurements, Policy, dump_policy, load_policy
from tdx.quote import BodyType, TdReport

DAY = 86_400
NOW = 1_800_000_000
A, B, C = (bytes([value]) * 48 for value in b"abc")

REPORT = TdReport(
    kind=BodyType.TD15,
    tee_tcb_svn=bytes(16),
    mrseam=B,
    mrsignerseam=bytes(48),
    seam_attributes=bytes(8),
    td_attributes=1 << 28,
    xfam=0x602E7,
    mrtd=A,
    mrconfigid=bytes(48),
    mrowner=bytes(48),
    mrownerconfig=bytes(48),
    rtmr=(A, B, C, bytes(48)),
    report_data=bytes(64),
    tee_tcb_svn2=bytes(16),
    mrservicetd=bytes(48),
)
FOUND = Assessment(
    emulated=False,
    status=TcbStatus.UP_TO_DATE,
    advisories=("INTEL-SA-1",),
    tcb_date=NOW - 100 * DAY,
    evaluation_number=18,
    issued_at=NOW - 5 * DAY,
    expires_at=NOW + 5 * DAY,
    fmspc=bytes(6),
    ppid=b"p" * 16,
    platform_instance_id=b"i" * 16,
)

TD_CASES: dict[str, tuple[Policy, TdReport, Check | None]] = {
    "default": (Policy(), REPORT, None),
    "debug": (Policy(), replace(REPORT, td_attributes=1 | 1 << 28), Check.TD_DEBUG),
    "profiling": (Policy(), replace(REPORT, td_attributes=1 << 5 | 1 << 28), Check.TD_ATTRIBUTES),
    "no SEPT_VE_DISABLE": (Policy(), replace(REPORT, td_attributes=0), Check.TD_ATTRIBUTES),
    "migratable": (Policy(), replace(REPORT, td_attributes=0x30000000), Check.TD_ATTRIBUTES),
    "reserved bit": (
        Policy(),
        replace(REPORT, td_attributes=1 << 39 | 1 << 28),
        Check.TD_ATTRIBUTES,
    ),
    "PKS": (Policy(), replace(REPORT, td_attributes=0x50000000), None),
    "XFAM without SSE": (Policy(), replace(REPORT, xfam=0x602E5), Check.XFAM),
    "XFAM reserved": (Policy(), replace(REPORT, xfam=0x602E7 | 1 << 40), Check.XFAM),
    "service TD": (Policy(), replace(REPORT, mrservicetd=A), Check.MRSERVICETD),
    "TD 1.5ex": (Policy(), replace(REPORT, kind=BodyType.TD15EX), Check.BODY_TYPE),
    "TD 1.5ex allowed": (Policy(allow_td15ex=True), replace(REPORT, kind=BodyType.TD15EX), None),
    "MRTD of a set": (Policy().require_mrtd(B, A), REPORT, None),
    "MRTD of none": (Policy().require_mrtd(B, C), REPORT, Check.MRTD),
    "RTMR0": (Policy().require_rtmr(0, B), REPORT, Check.RTMR0),
    "RTMR1": (Policy().require_rtmr(1, A), REPORT, Check.RTMR1),
    "RTMR2": (Policy().require_rtmr(2, A), REPORT, Check.RTMR2),
    "RTMR3": (Policy().require_rtmr(3, A), REPORT, Check.RTMR3),
    "MRSEAM": (Policy().require("mrseam", A), REPORT, Check.MRSEAM),
    "MRCONFIGID": (Policy().require("mrconfigid", A), REPORT, Check.MRCONFIGID),
    "MROWNER": (Policy().require("mrowner", A), REPORT, Check.MROWNER),
    "MROWNERCONFIG": (Policy().require("mrownerconfig", A), REPORT, Check.MROWNERCONFIG),
    "second variant fits": (
        Policy()
        .allow_variant(Measurements("one").require_mrtd(C))
        .allow_variant(Measurements("two").require_mrtd(A).require_rtmr(1, B)),
        REPORT,
        None,
    ),
    "no variant fits": (
        Policy()
        .allow_variant(Measurements("one").require_mrtd(C))
        .allow_variant(Measurements("two").require_mrtd(A).require_rtmr(1, C)),
        REPORT,
        Check.VARIANT,
    ),
    "the one variant fails": (
        Policy().allow_variant(Measurements("one").require_mrtd(C)),
        REPORT,
        Check.MRTD,
    ),
    "baseline holds beside a variant": (
        Policy().require_mrtd(C).allow_variant(Measurements("one").require_rtmr(1, B)),
        REPORT,
        Check.MRTD,
    ),
}


def outcome(act: Callable[[], None]) -> Check | None:
    try:
        act()
    except QuoteError as error:
        return error.check
    return None


@pytest.mark.parametrize("title", TD_CASES)
def test_a_trust_domain_is_judged_by_the_policy(title: str) -> None:
    policy, report, check = TD_CASES[title]
    assert outcome(lambda: policy.check_td(report)) is check


OLD = replace(FOUND, status=TcbStatus.OUT_OF_DATE)
TCB_CASES: dict[str, tuple[Policy, Assessment, Check | None]] = {
    "default": (Policy(), FOUND, None),
    "emulated": (Policy(), replace(FOUND, emulated=True), Check.EMULATED_MARKER),
    "emulated allowed": (Policy(allow_emulated=True), replace(FOUND, emulated=True), None),
    "out of date": (Policy(), OLD, Check.TCB_STATUS),
    "out of date accepted": (Policy().accept("OutOfDate"), OLD, None),
    "within grace": (Policy(grace_period_s=100 * DAY), OLD, None),
    "after grace": (Policy(grace_period_s=100 * DAY - 1), OLD, Check.TCB_STATUS),
    "grace is for age alone": (
        Policy(grace_period_s=1000 * DAY),
        replace(FOUND, status=TcbStatus.CONFIGURATION_NEEDED),
        Check.TCB_STATUS,
    ),
    "grace never covers revocation": (
        Policy(grace_period_s=1000 * DAY),
        replace(FOUND, status=TcbStatus.REVOKED),
        Check.TCB_STATUS,
    ),
    "denied advisory": (
        Policy(deny_advisories=frozenset({"INTEL-SA-1"})),
        FOUND,
        Check.ADVISORY,
    ),
    "evaluation number": (Policy(min_evaluation_number=19), FOUND, Check.EVALUATION_NUMBER),
    "least evaluation number": (
        Policy(min_evaluation_number=FOUND.evaluation_number),
        FOUND,
        None,
    ),
    "TCB date": (Policy(min_tcb_date=NOW), FOUND, Check.TCB_DATE),
    "least TCB date": (Policy(min_tcb_date=FOUND.tcb_date), FOUND, None),
    "no grace on the very day": (Policy(), replace(OLD, tcb_date=NOW), Check.TCB_STATUS),
}


@pytest.mark.parametrize("title", TCB_CASES)
def test_a_platform_is_judged_by_the_policy(title: str) -> None:
    policy, found, check = TCB_CASES[title]
    assert outcome(lambda: policy.check_tcb(found, now=NOW)) is check


def test_age_and_platform_are_judged_by_the_policy() -> None:
    for policy, check in (
        (Policy(max_collateral_age_s=5 * DAY), None),
        (Policy(max_collateral_age_s=5 * DAY - 1), Check.COLLATERAL_AGE),
        (Policy(platforms=frozenset({FOUND.platform_hashes[1]})), None),
        (Policy(platforms=frozenset({bytes(32)})), Check.PLATFORM),
    ):
        assert outcome(lambda policy=policy: policy.check_freshness(FOUND, now=NOW)) is check  # type: ignore[misc]


def test_a_machine_is_named_by_its_ppid_and_by_its_instance_id_where_it_has_one() -> None:
    alone = replace(FOUND, platform_instance_id=None)
    assert alone.platform_ids == (FOUND.ppid,)
    assert FOUND.platform_ids == (FOUND.ppid, FOUND.platform_instance_id)
    assert alone.platform_hashes == (sha256(FOUND.ppid).digest(),)


DISTINCT = {
    "default": Policy(),
    "status": Policy().accept("SWHardeningNeeded"),
    "advisories": Policy(deny_advisories=frozenset({"INTEL-SA-1"})),
    "number": Policy(min_evaluation_number=18),
    "date": Policy(min_tcb_date=18),
    "grace": Policy(grace_period_s=18),
    "age": Policy(max_collateral_age_s=18),
    "no age": Policy(max_collateral_age_s=0),
    "attributes": Policy(td_attributes=BitRule.of(required=[28], allowed=[])),
    "xfam": Policy(xfam=BitRule.of(required=[0, 1], allowed=[2])),
    "ex": Policy(allow_td15ex=True),
    "emulated": Policy(allow_emulated=True),
    "one identity": Policy(one_identity_per_platform=True),
    "platforms": Policy(platforms=frozenset({bytes(32)})),
    "mrtd": Policy().require_mrtd(A),
    "two mrtd": Policy().require_mrtd(A, B),
    "rtmr1": Policy().require_rtmr(1, A),
    "rtmr2": Policy().require_rtmr(2, A),
    "variant": Policy().allow_variant(Measurements("v").require_mrtd(A)),
    "two variants": Policy()
    .allow_variant(Measurements("v").require_mrtd(A))
    .allow_variant(Measurements("w").require_mrtd(B)),
}


def test_policies_that_decide_differently_have_different_digests() -> None:
    for one, other in itertools.combinations(DISTINCT, 2):
        assert DISTINCT[one].digest() != DISTINCT[other].digest(), (one, other)
    assert len(Policy().digest()) == 32


def test_order_and_names_do_not_change_the_digest() -> None:
    one = Measurements("one").require_mrtd(A)
    two = Measurements("two").require_rtmr(1, B)
    assert (
        Policy().require_mrtd(A, B).require_rtmr(1, C).digest()
        == Policy().require_rtmr(1, C.hex()).require_mrtd(B, A, A).digest()
    )
    assert (
        Policy().allow_variant(one).allow_variant(two).digest()
        == Policy().allow_variant(replace(two, name="x")).allow_variant(one).digest()
    )


@pytest.mark.parametrize("title", DISTINCT)
def test_a_policy_survives_its_file(title: str) -> None:
    policy = DISTINCT[title]
    loaded = load_policy(dump_policy(policy))
    assert loaded == policy
    assert loaded.digest() == policy.digest()


def test_names_of_variants_survive_their_file() -> None:
    name = 'quote " backslash \\ newline \n bell \a umlaut ü'
    policy = Policy().allow_variant(Measurements(name).require_mrtd(A))
    assert load_policy(dump_policy(policy)) == policy


def test_an_empty_file_is_the_default_policy() -> None:
    assert load_policy("") == Policy()


FILES_REFUSED = {
    "not TOML": "a = = b",
    "unknown key": "accept_status = []",
    "unknown status": 'accept_statuses = ["Fine"]',
    "revoked": 'accept_statuses = ["Revoked"]',
    "text for a list": 'accept_statuses = "UpToDate"',
    "number for a text": "accept_statuses = [1]",
    "negative number": "grace_period_s = -1",
    "boolean for a number": "grace_period_s = true",
    "number for a boolean": "allow_emulated = 1",
    "date without zone": "min_tcb_date = 2024-01-01T00:00:00",
    "debug allowed": "td_attributes = { required = [28], allowed = [0] }",
    "bit 64": "xfam = { required = [64] }",
    "unknown key in a rule": "xfam = { needed = [1] }",
    "short platform": 'platforms = ["00"]',
    "platform not hexadecimal": 'platforms = ["zz"]',
    "unknown register": '[require]\nrtmr4 = ["' + "00" * 48 + '"]',
    "short measurement": '[require]\nmrtd = ["00"]',
    "measurement not hexadecimal": '[require]\nmrtd = ["zz"]',
    "no measurement": "[require]\nmrtd = []",
    "variant without measurement": '[[variant]]\nname = "a"',
    "variant with a number for a name": "[[variant]]\nname = 1",
    "variant as a table": '[variant]\nname = "a"',
    "require as a list": "require = []",
}


@pytest.mark.parametrize("title", FILES_REFUSED)
def test_a_policy_file_that_is_not_understood_is_refused(title: str) -> None:
    with pytest.raises(PolicyError):
        load_policy(FILES_REFUSED[title])


def test_dates_may_be_written_as_days() -> None:
    assert load_policy("min_tcb_date = 1970-01-02").min_tcb_date == DAY


def test_numbers_that_could_not_be_written_are_refused() -> None:
    makers: tuple[Callable[[int], Policy], ...] = (
        lambda value: Policy(min_evaluation_number=value),
        lambda value: Policy(min_tcb_date=value),
        lambda value: Policy(grace_period_s=value),
        lambda value: Policy(max_collateral_age_s=value),
    )
    for number, make in itertools.product((-1, 1 << 60), makers):
        with pytest.raises(PolicyError):
            make(number)


def test_the_least_and_greatest_numbers_are_taken() -> None:
    for number in (0, 253_402_300_799):
        assert Policy(min_tcb_date=number).min_tcb_date == number
    with pytest.raises(PolicyError):
        Policy(min_tcb_date=253_402_300_800)


def test_a_register_is_required_once() -> None:
    with pytest.raises(PolicyError, match="already"):
        Policy().require_mrtd(A).require_mrtd(B)
    with pytest.raises(PolicyError):
        Policy().accept("Excellent")
