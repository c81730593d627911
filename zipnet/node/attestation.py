"""A node's own standing in an attested group: its attestor, and whether its evidence still passes.

Rules:

1. Before a node binds a port it shows evidence to itself and judges it by the descriptor: what
   every peer would refuse is said at once, to the operator.
2. It does so again while it runs; a node whose evidence would be refused is not ready, and says
   which check fails. One whose collateral lapses within three days is degraded.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from zipnet.admission import EvidenceView, boot_id_of, gate_of
from zipnet.attestation import PlatformAttestor
from zipnet.errors import AdmissionError, ConfigError
from zipnet.observe.health import HOLDS, degraded, failed
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from zipnet.observe.health import Health
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.settings.types import NodeSettings
    from zipnet.wire.handshake import Role

__all__ = ["NodeAttestation"]

_CONDITION = "attestation"
_LOOK_S = 5.0
_OVERDUE_S = 60.0
_EXPIRING_S = 3 * 86400
_SOURCE_HINT = "see TDX_SOURCE, TDX_COLLATERAL and TDX_EMULATOR in docs/reference/settings.md"

_log = get_logger(__name__)


class NodeAttestation:
    """What one node has to do with attestation.

    Args:
        settings: The node's settings.
        role: What the node is.
        boot_id: 16 random bytes drawn when this process started.

    Attributes:
        attestor: Shows and judges; None where the descriptor asks for nothing.

    Raises:
        ConfigError: When the collateral or a policy cannot be used.
    """

    def __init__(self, settings: NodeSettings, role: Role, boot_id: bytes) -> None:
        terms = settings.descriptor.descriptor.attestation
        self.attestor: PlatformAttestor | None = None
        self._view: EvidenceView | None = None
        self._settings = settings
        self._hint = f"the descriptor's policy is in its [tdx.{gate_of(role)}] table"
        if settings.platform is None:
            return
        self.attestor = PlatformAttestor(terms, settings.platform, boot_id=boot_id)
        gate = gate_of(role)
        if gate is not None and terms.policy_for(gate) is not None:
            self._view = EvidenceView(
                group=settings.descriptor.group,
                role=role,
                identity=settings.identity.public,
                boot_id=boot_id_of(boot_id),
            )

    async def require_own(self) -> None:
        """Say what the posture is, and judge this node's own evidence (rule 1).

        Raises:
            ConfigError: When peers would refuse it; names the check.
        """
        terms = self._settings.descriptor.descriptor.attestation
        if not terms.is_production:
            posture = self._settings.posture
            _log.warning("attestation_not_required", mode=terms.mode.value, posture=posture)
        if self.attestor is None or self._view is None:
            return
        try:
            await self.attestor.check_own(self._view)
        except AdmissionError as error:
            raise ConfigError(
                f"this node's own evidence would be refused ({error.code}): {error}",
                hint=self._hint if error.code.startswith("tdx_") else error.hint or _SOURCE_HINT,
            ) from error

    async def watch(self, health: Health, metrics: NodeMetrics) -> None:
        """Look after files and this node's evidence until cancelled (rule 2)."""
        attestor = self.attestor
        if attestor is None:
            return
        if self._view is not None:
            health.expect(_CONDITION, _OVERDUE_S)
        attestor.on_source_broken = metrics.breaker_open.inc
        for what in ("collateral", "policy"):
            metrics.watch_breaker(what, partial(attestor.broken_for_s, what))
        async with asyncio.TaskGroup() as group:
            group.create_task(attestor.run())
            while True:
                expires_at = attestor.collateral_expires_at
                if expires_at is not None:
                    metrics.collateral_expiry.set(expires_at)
                if self._view is not None:
                    await _judge_own(attestor, self._view, health, metrics)
                await asyncio.sleep(_LOOK_S)


async def _judge_own(
    attestor: PlatformAttestor, view: EvidenceView, health: Health, metrics: NodeMetrics
) -> None:
    try:
        judgement = await attestor.check_own(view)
    except AdmissionError as error:
        health.report(_CONDITION, failed(error.code))
        _log.error("own_evidence_refused", reason=error.code, error=str(error))
    else:
        metrics.evidence_expiry.set(judgement.not_after)
        expires_at = attestor.collateral_expires_at
        expiring = expires_at is not None and expires_at - attestor.now() < _EXPIRING_S
        health.report(_CONDITION, degraded("collateral_expiring") if expiring else HOLDS)
