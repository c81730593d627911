"""From an image to a policy: measure once, and demand exactly that."""

from __future__ import annotations

from dataclasses import dataclass

from tdx.measure.boot import PROFILES, Boot, rtmr1, rtmr2
from tdx.measure.mrtd import Mrtd, compute_mrtd
from tdx.policy import Measurements, Policy

__all__ = ["Manifest", "measure"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Hold the measurements of an image.

    Attributes:
        mrtd: MRTD in both orders.
        boots: RTMR1 and RTMR2 by profile; empty without a kernel.
    """

    mrtd: Mrtd
    boots: dict[str, tuple[bytes, bytes]]

    def policy(self, base: Policy | None = None) -> Policy:
        """Return a policy that demands these measurements.

        Without a kernel either MRTD will do. With one, each profile is a variant of its own: an
        MRTD of one kind of host does not go with the RTMR1 of another.

        Args:
            base: Everything else that is demanded.
        """
        policy = Policy() if base is None else base
        if not self.boots:
            return policy.require_mrtd(self.mrtd.single_pass, self.mrtd.two_pass)
        for name, (first, second) in self.boots.items():
            order = self.mrtd.two_pass if PROFILES[name].two_pass else self.mrtd.single_pass
            variant = Measurements(name).require_mrtd(order)
            policy = policy.allow_variant(variant.require_rtmr(1, first).require_rtmr(2, second))
        return policy


def measure(firmware: bytes, boot: Boot | None = None) -> Manifest:
    """Measure a firmware image and, if given, what it boots.

    Raises:
        ImageError: The image or the kernel cannot be measured.
    """
    boots = (
        {}
        if boot is None
        else {
            name: (rtmr1(boot, profile), rtmr2(boot, profile)) for name, profile in PROFILES.items()
        }
    )
    return Manifest(compute_mrtd(firmware), boots)
