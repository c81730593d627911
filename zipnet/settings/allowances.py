"""The keys that weaken a node, each by name and in so many words (rows H6, Z20).

Rules:

1. There is one convention: ``allow_<what>`` holds one exact sentence that says what is given up.
   Anything else, also an almost right sentence, allows nothing.
2. What was allowed is part of the settings, and so of ``/version``, the logs and the posture, also
   where it was not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zipnet.settings.values import (
    ALLOW_FEW_PARTICIPANTS,
    ALLOW_PUBLIC_GATEWAY,
    ALLOW_PUBLIC_METRICS,
    ALLOW_PUBLISHING_FOR_OTHERS,
    ALLOW_UNSIGNED_SETTINGS,
)

__all__ = ["ALLOWANCES", "PREFIX", "Allowance", "allowed_by", "void_allowances"]

PREFIX: Final = "allow_"


@dataclass(frozen=True, slots=True)
class Allowance:
    """One thing that may be weakened.

    Attributes:
        lets: What it lets happen, for the reference.
        sentence: The exact value that allows it.
    """

    lets: str
    sentence: str


ALLOWANCES: Final = {
    "allow_unsigned_settings": Allowance(
        "lets production read a settings file that nobody signed.", ALLOW_UNSIGNED_SETTINGS
    ),
    "allow_unattested": Allowance(
        "lets production run in a group whose descriptor asks for no TDX quotes.",
        "I understand that nobody proves what code the servers run",
    ),
    "allow_shared_fault_domain": Allowance(
        "lets production run where two servers of the committee stand in one fault domain, or do "
        "not say in which they stand.",
        "I understand that one failure or one warrant may reach several servers",
    ),
    "allow_old_build": Allowance(
        "lets production run a build, or inputs of a build, that are too old.",
        "I understand that this build lacks the fixes made since",
    ),
    "allow_old_keys": Allowance(
        "lets production run with keys that have been in use for more than 90 days.",
        "I understand that a key somebody copied is good for as long as it is in use",
    ),
    "allow_no_sandbox": Allowance(
        "lets production run where the kernel or the library makes no filter of system calls.",
        "I understand that an intruder may start programs on this machine",
    ),
    "allow_privileges": Allowance(
        "lets production run as root or with capabilities.",
        "I understand that an intruder gets these privileges too",
    ),
    "allow_writable_system": Allowance(
        "lets production run on a root filesystem it can write to.",
        "I understand that an intruder may change the system's files",
    ),
    "allow_public_metrics": Allowance("lets METRICS listen beyond loopback.", ALLOW_PUBLIC_METRICS),
    "allow_few_participants": Allowance(
        "lets production run with MIN_PARTICIPANTS below 8.", ALLOW_FEW_PARTICIPANTS
    ),
    "allow_public_gateway": Allowance(
        "lets the gateway listen beyond loopback.", ALLOW_PUBLIC_GATEWAY
    ),
    "allow_publishing_for_others": Allowance(
        "lets other machines publish through the gateway.", ALLOW_PUBLISHING_FOR_OTHERS
    ),
}
"""Every key that weakens something, by its name."""


def allowed_by(given: object) -> tuple[str, ...]:
    """Return the names of what a settings model allows, without their prefix, in order.

    Args:
        given: The validated settings of a role; keys its role does not have count as unset.
    """
    return tuple(
        key.removeprefix(PREFIX)
        for key, allowance in ALLOWANCES.items()
        if getattr(given, key, None) == allowance.sentence
    )


def void_allowances(given: object) -> tuple[str, ...]:
    """Return the keys of a settings model that are set to something that allows nothing."""
    return tuple(
        key
        for key, allowance in ALLOWANCES.items()
        if getattr(given, key, None) not in (None, allowance.sentence)
    )
