"""What a relying party accepts of a quote that is genuine: statuses, attributes, measurements.

A policy is a value: every method returns a new one, and its digest enters the group id, so parties
that accept different things are in different groups. The default accepts an up-to-date platform and
a trust domain that cannot be debugged or migrated, and constrains no measurement.

Example::

    policy = Policy().require_mrtd(mrtd_single_pass, mrtd_two_pass).require_rtmr(1, kernel)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from tdx.collateral import TcbStatus
from tdx.errors import Check, PolicyError, QuoteError
from tdx.policy.bits import DEFAULT_TD_ATTRIBUTES, DEFAULT_XFAM, BitRule
from tdx.policy.measurements import Measurements
from tdx.quote import BodyType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdx.policy.assessment import Assessment
    from tdx.quote import TdReport

__all__ = ["Policy"]

_DOMAIN = b"tdx/policy/v1"
_DEBUG = 1
_UNTRUSTED_BITS = 0xFF
_MAX_NUMBER = 253_402_300_799  # the last second of the year 9999, which TOML can still write
_STALE = frozenset(
    {
        TcbStatus.OUT_OF_DATE,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
        TcbStatus.TD_RELAUNCH_ADVISED,
        TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold what is accepted.

    Attributes:
        accept_statuses: TCB statuses that pass; ``Revoked`` cannot be among them.
        deny_advisories: Advisory ids that must not apply.
        min_evaluation_number: Least ``tcbEvaluationDataNumber`` of TCB Info and QE Identity.
        min_tcb_date: Least date of every matched level, Unix seconds.
        grace_period_s: How long after its level's date an out-of-date platform still passes.
        max_collateral_age_s: Greatest age of the oldest part of the collateral, or None.
        td_attributes: Rule for TDATTRIBUTES; may not allow bits 0 to 7 (debug and profiling).
        xfam: Rule for XFAM.
        allow_td15ex: Whether TD 1.5ex bodies (migration, partitioning) pass.
        allow_emulated: Whether verdicts under an emulated root pass. Never in production.
        platforms: SHA-256 of accepted platform ids (PPID or instance id); empty accepts all.
        one_identity_per_platform: Whether a machine may hold one identity only (kept by
            ``tdx.verify.PlatformRegister``).
        baseline: Measurements that always hold.
        variants: If any, one of them holds as well.
    """

    accept_statuses: frozenset[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE})
    deny_advisories: frozenset[str] = frozenset()
    min_evaluation_number: int = 0
    min_tcb_date: int = 0
    grace_period_s: int = 0
    max_collateral_age_s: int | None = None
    td_attributes: BitRule = DEFAULT_TD_ATTRIBUTES
    xfam: BitRule = DEFAULT_XFAM
    allow_td15ex: bool = False
    allow_emulated: bool = False
    platforms: frozenset[bytes] = frozenset()
    one_identity_per_platform: bool = False
    baseline: Measurements = field(default_factory=Measurements)
    variants: tuple[Measurements, ...] = ()

    def __post_init__(self) -> None:
        if TcbStatus.REVOKED in self.accept_statuses:
            raise PolicyError("a revoked platform is never acceptable")
        if self.td_attributes.allowed & _UNTRUSTED_BITS:
            raise PolicyError("TD attribute bits 0 to 7 (debug, profiling) cannot be allowed")
        numbers = (
            self.min_evaluation_number,
            self.min_tcb_date,
            self.grace_period_s,
            self.max_collateral_age_s or 0,
        )
        if not all(0 <= number <= _MAX_NUMBER for number in numbers):
            raise PolicyError(f"numbers, dates and periods lie within 0 and {_MAX_NUMBER}")

    def require_mrtd(self, *values: bytes | str) -> Policy:
        """Return a policy that also demands one of these MRTDs (48 bytes or 96 hex digits)."""
        return replace(self, baseline=self.baseline.require_mrtd(*values))

    def require_rtmr(self, index: int, *values: bytes | str) -> Policy:
        """Return a policy that also demands one of these values in RTMR ``index`` (0 to 3)."""
        return replace(self, baseline=self.baseline.require_rtmr(index, *values))

    def require(self, register: str, *values: bytes | str) -> Policy:
        """Return a policy that also demands one of these values in any register by name."""
        return replace(self, baseline=self.baseline.require(register, *values))

    def allow_variant(self, variant: Measurements) -> Policy:
        """Return a policy that accepts one more variant: the baseline and any one variant hold."""
        if not variant.required:
            raise PolicyError(f"variant {variant.name} requires nothing and would accept anything")
        return replace(self, variants=(*self.variants, variant))

    def accepted_mrtds(self) -> frozenset[bytes] | None:
        """Return every MRTD that can satisfy the policy, None where it asks for none."""
        sets = [dict(group.required).get("mrtd") for group in (self.baseline, *self.variants)]
        baseline, variants = sets[0], sets[1:]
        if not variants or None in variants:
            return None if baseline is None else frozenset(baseline)
        of_variants = frozenset(value for listed in variants if listed for value in listed)
        return of_variants if baseline is None else of_variants & frozenset(baseline)

    def accept(self, *statuses: TcbStatus | str) -> Policy:
        """Return a policy that also accepts these TCB statuses."""
        try:
            more = frozenset(TcbStatus(status) for status in statuses)
        except ValueError as error:
            raise PolicyError(str(error)) from None
        return replace(self, accept_statuses=self.accept_statuses | more)

    def check_tcb(self, found: Assessment, *, now: int) -> None:
        """Judge the platform: root, status, advisories, evaluation number, dates.

        Raises:
            QuoteError: ``emulated_marker``, ``tcb_status``, ``advisory``, ``evaluation_number`` or
                ``tcb_date``.
        """
        if found.emulated and not self.allow_emulated:
            raise QuoteError(Check.EMULATED_MARKER, "the policy takes no emulated quotes")
        if found.status not in self.accept_statuses and not self._in_grace(found, now):
            raise QuoteError(
                Check.TCB_STATUS,
                f"the TCB status is one of {', '.join(sorted(self.accept_statuses))}",
                value=found.status,
            )
        denied = sorted(self.deny_advisories.intersection(found.advisories))
        if denied:
            raise QuoteError(Check.ADVISORY, "no denied advisory applies", value=", ".join(denied))
        if found.evaluation_number < self.min_evaluation_number:
            raise QuoteError(
                Check.EVALUATION_NUMBER,
                f"the evaluation data number is at least {self.min_evaluation_number}",
                value=found.evaluation_number,
            )
        if found.tcb_date < self.min_tcb_date:
            raise QuoteError(
                Check.TCB_DATE,
                f"the TCB date is at least {self.min_tcb_date}",
                value=found.tcb_date,
            )

    def check_td(self, report: TdReport) -> None:
        """Judge the trust domain: body type, attributes, XFAM, service TD, measurements.

        Raises:
            QuoteError: Named for the field that differs, ``variant`` if none of several fits.
        """
        if report.kind is BodyType.TD15EX and not self.allow_td15ex:
            raise QuoteError(Check.BODY_TYPE, "the policy takes no TD 1.5ex reports", value="4")
        if report.td_attributes & _DEBUG:
            raise QuoteError(
                Check.TD_DEBUG, "the TD is not debuggable", value=hex(report.td_attributes)
            )
        self.td_attributes.check(report.td_attributes, Check.TD_ATTRIBUTES)
        self.xfam.check(report.xfam, Check.XFAM)
        if report.mrservicetd is not None and any(report.mrservicetd):
            raise QuoteError(
                Check.MRSERVICETD, "no service TD is bound", value=report.mrservicetd.hex()
            )
        self.baseline.check(report)
        self._check_variants(report)

    def check_freshness(self, found: Assessment, *, now: int) -> None:
        """Judge the age of the collateral and the platform's identity.

        Raises:
            QuoteError: ``collateral_age`` or ``platform``.
        """
        age = now - found.issued_at
        if self.max_collateral_age_s is not None and age > self.max_collateral_age_s:
            raise QuoteError(
                Check.COLLATERAL_AGE,
                f"the collateral is at most {self.max_collateral_age_s} s old",
                value=age,
            )
        if self.platforms and self.platforms.isdisjoint(found.platform_hashes):
            raise QuoteError(Check.PLATFORM, "the platform is on the list")

    def digest(self) -> bytes:
        """Return 32 bytes that differ for every policy that decides differently."""
        state = sha256(_DOMAIN)
        for piece in self._encoded():
            state.update(len(piece).to_bytes(4, "big") + piece)
        return state.digest()

    def _encoded(self) -> Iterator[bytes]:
        age = self.max_collateral_age_s
        yield ",".join(sorted(self.accept_statuses)).encode()
        yield "\n".join(sorted(self.deny_advisories)).encode()
        for number in (self.min_evaluation_number, self.min_tcb_date, self.grace_period_s):
            yield number.to_bytes(8, "big")
        yield b"" if age is None else age.to_bytes(8, "big")
        for rule in (self.td_attributes, self.xfam):
            yield rule.required.to_bytes(8, "big") + rule.allowed.to_bytes(8, "big")
        yield bytes([self.allow_td15ex, self.allow_emulated, self.one_identity_per_platform])
        yield b"".join(sorted(self.platforms))
        # Order and names of variants decide nothing, so they are left out of the digest.
        for group in (self.baseline, *sorted(self.variants, key=lambda one: one.required)):
            yield b"measurements"
            yield from group.encoded()

    def _in_grace(self, found: Assessment, now: int) -> bool:
        return (
            self.grace_period_s > 0
            and found.status in _STALE
            and now <= found.tcb_date + self.grace_period_s
        )

    def _check_variants(self, report: TdReport) -> None:
        refusals: list[QuoteError] = []
        for variant in self.variants:
            try:
                variant.check(report)
            except QuoteError as error:
                refusals.append(error)
            else:
                return
        if len(refusals) == 1:
            raise refusals[0]
        if refusals:
            reasons = "; ".join(str(refusal) for refusal in refusals)
            raise QuoteError(Check.VARIANT, "one of the variants fits", value=reasons)
