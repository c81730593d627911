"""What must hold before a node starts, by profile: pure checks, and the probe of the host."""

from zipnet.posture.checks import CHECKS
from zipnet.posture.examine import examine, require_posture
from zipnet.posture.probe import probe_host
from zipnet.posture.subject import BuildAge, Check, Finding, HostFacts, Keeping, Problem, Subject

__all__ = [
    "CHECKS",
    "BuildAge",
    "Check",
    "Finding",
    "HostFacts",
    "Keeping",
    "Problem",
    "Subject",
    "examine",
    "probe_host",
    "require_posture",
]
