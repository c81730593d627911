"""What steps 1 to 12 of a verification established, in the form a policy judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdx.collateral import TcbStatus

__all__ = ["Assessment"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """Hold the facts about platform and collateral.

    Attributes:
        emulated: Whether the chain ends in an emulator's root.
        status: Converged TCB status.
        advisories: Sorted advisory ids of all matched levels.
        tcb_date: Earliest date of the matched levels, Unix seconds.
        evaluation_number: The smaller number of TCB Info and QE Identity.
        issued_at: When the oldest part of the collateral was issued, Unix seconds.
        expires_at: When the first part of the collateral or chain lapses, Unix seconds.
        fmspc: 6 bytes.
        ppid: 16 bytes. Names one machine: publish only salted.
        platform_instance_id: 16 bytes, or None.
    """

    emulated: bool
    status: TcbStatus
    advisories: tuple[str, ...]
    tcb_date: int
    evaluation_number: int
    issued_at: int
    expires_at: int
    fmspc: bytes
    ppid: bytes = field(repr=False)
    platform_instance_id: bytes | None = field(repr=False)

    @property
    def platform_ids(self) -> tuple[bytes, ...]:
        """Return what names the machine: the PPID, and the instance id where there is one."""
        if self.platform_instance_id is None:
            return (self.ppid,)
        return (self.ppid, self.platform_instance_id)

    @property
    def platform_hashes(self) -> tuple[bytes, ...]:
        """Return SHA-256 of each platform id, the form in which a policy lists platforms."""
        return tuple(sha256(one).digest() for one in self.platform_ids)
