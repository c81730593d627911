"""What a verifier remembers between quotes: the newest collateral, and who sits on which machine.

Both are values: the caller keeps and stores them, and a verification changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdx.errors import Check, QuoteError

if TYPE_CHECKING:
    from tdx.verify.verdict import Verdict

__all__ = ["Marks", "PlatformRegister", "RollbackMemory"]


@dataclass(frozen=True, slots=True)
class Marks:
    """Hold the numbers of one set of collateral.

    Intel has so far numbered every CRL 1, so those guard little today; the evaluation numbers rise
    with each TCB recovery. For CRLs, bound the age with ``Policy.max_collateral_age_s``.

    Attributes:
        tcb_info: ``tcbEvaluationDataNumber`` of TCB Info.
        qe_identity: The same of QE Identity.
        root_crl: CRL number.
        pck_crl: CRL number.
    """

    tcb_info: int
    qe_identity: int
    root_crl: int
    pck_crl: int

    def named(self) -> tuple[tuple[str, int], ...]:
        """Return each number with its name."""
        return (
            ("tcb_info", self.tcb_info),
            ("qe_identity", self.qe_identity),
            ("root_crl", self.root_crl),
            ("pck_crl", self.pck_crl),
        )


@dataclass(frozen=True, slots=True)
class RollbackMemory:
    """Remember the highest numbers seen per FMSPC, so that older collateral is refused.

    Attributes:
        seen: Marks by FMSPC (6 bytes).
    """

    seen: Mapping[bytes, Marks] = field(default_factory=dict)

    def check(self, fmspc: bytes, marks: Marks) -> None:
        """Refuse collateral older than what was seen before.

        Raises:
            QuoteError: ``rollback``, naming the number that went back.
        """
        before = self.seen.get(fmspc)
        if before is None:
            return
        for (name, number), (_, least) in zip(marks.named(), before.named(), strict=True):
            if number < least:
                raise QuoteError(
                    Check.ROLLBACK, f"the number of {name} is at least {least}", value=number
                )

    def advanced(self, verdict: Verdict) -> RollbackMemory:
        """Return a memory that also holds a verdict's numbers."""
        fmspc, marks = verdict.assessment.fmspc, verdict.marks
        before = self.seen.get(fmspc, marks)
        highest = Marks(
            *(max(a, b) for (_, a), (_, b) in zip(before.named(), marks.named(), strict=True))
        )
        return RollbackMemory({**self.seen, fmspc: highest})


@dataclass(frozen=True, slots=True)
class PlatformRegister:
    """Keep one identity per physical machine, where honesty is counted in machines.

    Attributes:
        holders: Identity by platform id; a machine has one or two ids (PPID, instance id).
    """

    holders: Mapping[bytes, bytes] = field(default_factory=dict)

    def admit(self, verdict: Verdict, identity: bytes) -> PlatformRegister:
        """Return a register in which ``identity`` holds the verdict's machine.

        Raises:
            QuoteError: ``platform_reused`` if another identity holds it already.
        """
        ids = verdict.assessment.platform_ids
        if any(self.holders.get(one, identity) != identity for one in ids):
            raise QuoteError(Check.PLATFORM_REUSED, "no other identity lives on this machine")
        return PlatformRegister({**self.holders, **dict.fromkeys(ids, identity)})

    def released(self, identity: bytes) -> PlatformRegister:
        """Return a register without ``identity``."""
        kept = {key: holder for key, holder in self.holders.items() if holder != identity}
        return PlatformRegister(kept)
