"""What a node says of itself on ``/version`` (row A2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.node.build import build_commit, build_version
from zipnet.node.features import features_of
from zipnet.node.sandbox import sandbox_in_force
from zipnet.transport.egress import egress_in_force

if TYPE_CHECKING:
    from zipnet.settings.types import NodeSettings

__all__ = ["version_facts"]


def version_facts(settings: NodeSettings) -> dict[str, str]:
    """Return version, commit, posture, what weakens it by name, attestation, sandbox, egress."""
    return {
        "version": build_version(),
        "commit": build_commit(),
        "features": ",".join(features_of(settings)),
        "posture": settings.posture,
        "allowed": ",".join(settings.allowed) or "nothing",
        "attestation": settings.descriptor.descriptor.attestation.mode.value,
        "sandbox": sandbox_in_force(),
        "egress": egress_in_force(),
    }
