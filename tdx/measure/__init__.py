"""Measure TD images before they run: MRTD, RTMR1, RTMR2, and the policy that demands them."""

from tdx.measure.authenticode import authenticode_sha384
from tdx.measure.boot import PROFILES, Boot, Profile, rtmr1, rtmr2
from tdx.measure.manifest import Manifest, measure
from tdx.measure.mrtd import Mrtd, compute_mrtd
from tdx.measure.tdvf import Section, SectionType, parse_tdvf

__all__ = [
    "PROFILES",
    "Boot",
    "Manifest",
    "Mrtd",
    "Profile",
    "Section",
    "SectionType",
    "authenticode_sha384",
    "compute_mrtd",
    "measure",
    "parse_tdvf",
    "rtmr1",
    "rtmr2",
]
