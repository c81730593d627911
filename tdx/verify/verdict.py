"""The verdict: proof, by its type, that every check has passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdx.policy import Assessment
    from tdx.quote import TdReport
    from tdx.trust import TrustRoot
    from tdx.verify.memory import Marks

__all__ = ["SEAL", "Verdict"]

SEAL = object()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold an accepted quote. Only ``tdx.verify.verify`` makes one.

    Attributes:
        root: The root it was accepted under.
        report: The TD report.
        assessment: Status, advisories, dates and platform.
        quote_identity: SHA-256 of the signed bytes (32 bytes).
        report_data_checked: Whether the caller's expected report data was compared.
        policy_digest: Digest of the policy that accepted it.
        marks: Numbers of the collateral, for ``RollbackMemory``.
        verified_at: The time it was judged at, Unix seconds.
    """

    root: TrustRoot
    report: TdReport
    assessment: Assessment
    quote_identity: bytes
    report_data_checked: bool
    policy_digest: bytes
    marks: Marks
    verified_at: int
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not SEAL:
            raise TypeError("a verdict is made by tdx.verify.verify alone")

    @property
    def expires_at(self) -> int:
        """When the collateral it rests on lapses (Unix seconds): verify again before."""
        return self.assessment.expires_at
