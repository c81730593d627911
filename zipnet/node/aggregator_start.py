"""Starting an aggregator, in order.

Rules:

1. Settings are checked already; what they name is opened and read; the committee is asked whether
   somebody else lives under this identity; only then are ports bound. So a misconfigured or
   doubled node is heard of nowhere.
2. Nothing durable is kept: a restarted aggregator takes part from the next round on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zipnet.node.aggregator import Aggregator
from zipnet.node.alone import Target, require_alone
from zipnet.node.attestation import NodeAttestation
from zipnet.node.live_descriptor import certificates_of
from zipnet.node.notify import ServiceNotifier
from zipnet.node.wall import link_limits
from zipnet.transport.certificate import registered_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, SessionTerms
from zipnet.transport.tls import TlsTransport

if TYPE_CHECKING:
    import asyncio

    from zipnet.attestation import PlatformAttestor
    from zipnet.settings import AggregatorSettings

__all__ = ["open_aggregator", "run_aggregator"]


async def run_aggregator(
    settings: AggregatorSettings, stop: asyncio.Event, notifier: ServiceNotifier | None = None
) -> None:
    """Run an aggregator until ``stop`` is set.

    Args:
        settings: Its settings, checked.
        stop: Ends it.
        notifier: Told when it is ready; the service manager's when None.

    Raises:
        ConfigError: When ports are taken, or the committee or the parent refuses this node.
        DuplicateIdentityError: When another live node uses this identity.
    """
    await (await open_aggregator(settings, notifier)).run(stop)


async def open_aggregator(
    settings: AggregatorSettings, notifier: ServiceNotifier | None = None
) -> Aggregator:
    """Return an aggregator that may run, and has bound nothing yet.

    Args:
        settings: Its settings, checked.
        notifier: Told when it is ready; the service manager's when None.

    Raises:
        ConfigError: When what the settings name cannot be used, or its evidence would be refused.
        DuplicateIdentityError: When another live node uses this identity.
    """
    boot_id = os.urandom(16)
    attestation = NodeAttestation(settings, Role.AGGREGATOR, boot_id)
    terms, transports = _identify(settings, attestation.attestor, boot_id)
    notifier = notifier or ServiceNotifier(os.environ)
    node = Aggregator(settings, terms, transports, attestation, notifier)
    await attestation.require_own()
    await require_alone(_targets(settings), terms, transports[1], name=settings.node.name)
    return node


def _identify(
    settings: AggregatorSettings, attestor: PlatformAttestor | None, boot_id: bytes
) -> tuple[SessionTerms, tuple[QuicTransport, TlsTransport]]:
    descriptor = settings.descriptor
    terms = SessionTerms(
        instance_id=descriptor.descriptor.instance,
        group_id=descriptor.group,
        role=Role.AGGREGATOR,
        identity=settings.identity,
        boot_id=boot_id,
        attestor=attestor,
        limits=link_limits(settings.bounds),
    )
    private_key = settings.identity.ed25519_private_key()
    certificate = registered_certificate(private_key, settings.node.certificate)
    registered = certificates_of(descriptor)
    return terms, (
        QuicTransport(certificate, registered=registered, limits=terms.limits),
        TlsTransport(certificate, registered=registered, limits=terms.limits),
    )


def _targets(settings: AggregatorSettings) -> list[Target]:
    """Return the servers, to be asked whether this identity is alive elsewhere."""
    found = zip(settings.server_endpoints, settings.descriptor.committee_keys, strict=True)
    return [Target(endpoint.host, endpoint.port, key) for endpoint, key in found]
