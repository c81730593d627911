"""Masks for TDATTRIBUTES and XFAM: which bits must be set, which may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tdx.errors import Check, PolicyError, QuoteError

__all__ = ["DEFAULT_TD_ATTRIBUTES", "DEFAULT_XFAM", "BitRule"]

_WIDTH = 64


@dataclass(frozen=True, slots=True)
class BitRule:
    """Demand some bits of a 64-bit mask and allow some others; every other bit must be zero.

    Attributes:
        required: Bits that must be set.
        allowed: Bits that may be set, as a mask; always holds ``required``.
    """

    required: int
    allowed: int

    @classmethod
    def of(cls, *, required: Iterable[int], allowed: Iterable[int]) -> BitRule:
        """Make a rule from bit numbers, 0 to 63.

        Raises:
            PolicyError: A number is out of range.
        """
        must = _mask(required)
        return cls(must, must | _mask(allowed))

    def check(self, value: int, check: Check) -> None:
        """Compare a mask with the rule.

        Raises:
            QuoteError: ``check``, naming the bits that are missing or not allowed.
        """
        missing = self.required & ~value
        if missing:
            raise QuoteError(check, f"bits {_numbers(missing)} are set", value=hex(value))
        excess = value & ~self.allowed
        if excess:
            raise QuoteError(check, f"bits {_numbers(excess)} are clear", value=hex(value))


def _mask(bits: Iterable[int]) -> int:
    mask = 0
    for bit in bits:
        if not 0 <= bit < _WIDTH:
            raise PolicyError(f"bit {bit} is not within 0 to 63")
        mask |= 1 << bit
    return mask


def _numbers(mask: int) -> list[int]:
    return [bit for bit in range(_WIDTH) if mask >> bit & 1]


# 28 SEPT_VE_DISABLE is demanded: without it the host can inject exceptions by unmapping pages.
# Allowed: 16 ICSSD, 27 LASS, 30 PKS, 31 KL, 62 TPA, 63 PERFMON. Not allowed unless a policy names
# them: 17 SERVTD_EXT and 29 MIGRATABLE, with which another TD may take part.
DEFAULT_TD_ATTRIBUTES = BitRule.of(required=[28], allowed=[16, 27, 30, 31, 62, 63])
# x87 and SSE are always there; the rest is what TDX modules can enable (mask 0x6DBE7).
DEFAULT_XFAM = BitRule(required=0x3, allowed=0x6DBE7)
