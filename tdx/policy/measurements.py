"""Sets of expected measurements: every named register must hold one of its listed values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdx.errors import Check, PolicyError, QuoteError

if TYPE_CHECKING:
    from tdx.quote import TdReport

__all__ = ["REGISTERS", "Measurements"]

_BYTES = 48
REGISTERS: dict[str, Check] = {
    "mrtd": Check.MRTD,
    "rtmr0": Check.RTMR0,
    "rtmr1": Check.RTMR1,
    "rtmr2": Check.RTMR2,
    "rtmr3": Check.RTMR3,
    "mrseam": Check.MRSEAM,
    "mrconfigid": Check.MRCONFIGID,
    "mrowner": Check.MROWNER,
    "mrownerconfig": Check.MROWNERCONFIG,
}


@dataclass(frozen=True, slots=True)
class Measurements:
    """Hold alternatives per register; a register that is not named is not constrained.

    Attributes:
        name: What the set is called in messages and policy files.
        required: Pairs of register and its accepted values of 48 bytes, sorted.
    """

    name: str = "baseline"
    required: tuple[tuple[str, tuple[bytes, ...]], ...] = ()

    def require(self, register: str, *values: bytes | str) -> Measurements:
        """Return a copy that also demands one of ``values`` in ``register``.

        Args:
            register: A key of ``REGISTERS``.
            values: 48 bytes each, or 96 hexadecimal digits.

        Raises:
            PolicyError: Unknown or already constrained register, no value, or a wrong length.
        """
        if register not in REGISTERS:
            raise PolicyError(f"{register} is no register", hint=f"one of {', '.join(REGISTERS)}")
        if register in dict(self.required):
            raise PolicyError(
                f"{register} is already required", hint="list all its values in one call"
            )
        if not values:
            raise PolicyError(f"{register} needs at least one value")
        accepted = tuple(sorted({_value(register, value) for value in values}))
        return Measurements(self.name, tuple(sorted([*self.required, (register, accepted)])))

    def require_mrtd(self, *values: bytes | str) -> Measurements:
        """Return a copy that also demands one of these MRTDs."""
        return self.require("mrtd", *values)

    def require_rtmr(self, index: int, *values: bytes | str) -> Measurements:
        """Return a copy that also demands one of these values in RTMR ``index`` (0 to 3)."""
        return self.require(f"rtmr{index}", *values)

    def check(self, report: TdReport) -> None:
        """Compare a report with the set.

        Raises:
            QuoteError: Named for the first register that holds none of its values.
        """
        for register, accepted in self.required:
            found = _register(report, register)
            if found not in accepted:
                raise QuoteError(
                    REGISTERS[register],
                    f"{register} is one of the {len(accepted)} values of {self.name}",
                    value=found.hex(),
                )

    def encoded(self) -> Iterator[bytes]:
        """Yield the pieces that a policy's digest covers, the name left out."""
        for register, accepted in self.required:
            yield register.encode()
            yield b"".join(accepted)


def _register(report: TdReport, register: str) -> bytes:
    if register.startswith("rtmr"):
        return report.rtmr[int(register[-1])]
    found: bytes = getattr(report, register)
    return found


def _value(register: str, value: bytes | str) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else bytes(value)
    except ValueError:
        raise PolicyError(f"a value of {register} is not hexadecimal") from None
    if len(found) != _BYTES:
        raise PolicyError(f"a value of {register} has {_BYTES} bytes, not {len(found)}")
    return found
