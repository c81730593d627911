"""Starting a committee server, in order, and ending it in order.

Start: settings are already checked; ask the other servers whether somebody else lives under this
identity; only then touch the disk; bind the ports; join. So a misconfigured or doubled node writes
nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from zipnet.errors import (
    StorageError,
)
from zipnet.node.alone import Target, require_alone
from zipnet.node.attestation import NodeAttestation
from zipnet.node.committee_secret import committee_secrets_of, require_committee_secret
from zipnet.node.live_descriptor import certificates_of
from zipnet.node.notify import ServiceNotifier
from zipnet.node.safe_mode import is_failed_write, note_of, serve_readers_only
from zipnet.node.server import CommitteeServer
from zipnet.node.server_driver import safe_mode_in
from zipnet.node.server_state import (
    RECORDS_FOLDER,
    ServerState,
    make_folders,
    open_durable,
    open_in_memory,
)
from zipnet.node.server_succession import settings_for_readers, settings_in_force
from zipnet.node.settings_guard import require_not_older
from zipnet.node.version import version_facts
from zipnet.node.wall import link_limits
from zipnet.observe.log import get_logger
from zipnet.storage.marker import SafeModeMarker
from zipnet.transport.certificate import registered_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, SessionTerms
from zipnet.transport.tls import TlsTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from zipnet.attestation import PlatformAttestor
    from zipnet.settings import ServerSettings
    from zipnet.storage.marker import SafeModeNote

__all__ = ["identify", "run_server"]


async def run_server(
    settings: ServerSettings, stop: asyncio.Event, notifier: ServiceNotifier | None = None
) -> None:
    """Run a committee server until ``stop`` is set.

    Args:
        settings: Its settings, checked.
        stop: Ends it.
        notifier: Told when it is ready; the service manager's when None.

    Raises:
        ConfigError: When ports are taken or the state folder is somebody else's.
        DuplicateIdentityError: When another live node uses this identity.
        StorageError: When the durable state cannot be trusted.
    """
    boot_id = os.urandom(16)
    attestation = NodeAttestation(settings, Role.SERVER, boot_id)
    terms, transports = identify(settings, attestation.attestor, boot_id)
    await attestation.require_own()
    await require_alone(_targets(settings), terms, transports[1], name=settings.node.name)
    notifier = notifier or ServiceNotifier(os.environ)
    run = partial(_run_on, settings, terms, transports, attestation, notifier, stop)
    if settings.state is None:
        await run(open_in_memory(settings))
        return
    make_folders(settings.state)
    marker = SafeModeMarker(settings.state)
    try:
        require_not_older(settings, settings.state)
        note = marker.read() or await _run_durable(settings, settings.state, run, marker)
        if note is not None:
            folder = settings.state / RECORDS_FOLDER
            version = version_facts(settings)
            await serve_readers_only(
                settings_for_readers(settings, settings.state),
                folder,
                note,
                terms,
                transports,
                stop,
                notifier=notifier,
                version=version,
            )
    finally:
        marker.close()


async def _run_durable(
    settings: ServerSettings,
    folder: Path,
    run: Callable[[ServerState], Awaitable[None]],
    marker: SafeModeMarker,
) -> SafeModeNote | None:
    """Run on a state folder; returns None at the end, or why the node is in safe mode."""
    try:
        await run(open_durable(settings, folder))
    except (StorageError, BaseExceptionGroup) as error:
        failure = error if isinstance(error, StorageError) else safe_mode_in(error)
        if failure is None or not is_failed_write(failure):
            raise
        note = note_of(failure, time.time())
        if not marker.set(note):
            get_logger().error("safe_mode_not_marked", reason=note.cause, path=str(folder))
        return note
    return None


async def _run_on(
    settings: ServerSettings,
    terms: SessionTerms,
    transports: tuple[QuicTransport, TlsTransport],
    attestation: NodeAttestation,
    notifier: ServiceNotifier,
    stop: asyncio.Event,
    state: ServerState,
) -> None:
    try:
        given = settings.descriptor
        # A newcomer asks for as long as nobody answers, and must heed its operator meanwhile.
        asking = settings_in_force(settings, state, terms, transports[1])
        found = await _unless_stopped(stop, asking)
        if found is None:
            return
        settings = found
        secrets = require_committee_secret(settings, terms, given)
        parts = (state, terms, transports, attestation, notifier)
        await CommitteeServer(settings, secrets, *parts).run(stop)
    finally:
        state.close()


async def _unless_stopped(
    stop: asyncio.Event, work: Coroutine[None, None, ServerSettings]
) -> ServerSettings | None:
    """Return what ``work`` returns; None where it is told to stop before."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def identify(
    settings: ServerSettings, attestor: PlatformAttestor | None, boot_id: bytes
) -> tuple[SessionTerms, tuple[QuicTransport, TlsTransport]]:
    """Return what a server says in handshakes, and its engines, QUIC first.

    Raises:
        VerificationError: The descriptor names a certificate that is none of its key's.
    """
    descriptor = settings.descriptor
    terms = SessionTerms(
        instance_id=descriptor.descriptor.instance,
        group_id=descriptor.group,
        role=Role.SERVER,
        identity=settings.identity,
        boot_id=boot_id,
        committee_secret=committee_secrets_of(settings),
        attestor=attestor,
        limits=link_limits(settings.bounds),
    )
    private_key = settings.identity.ed25519_private_key()
    certificate = registered_certificate(private_key, settings.node.certificate)
    registered = certificates_of(settings.descriptor)
    return terms, (
        QuicTransport(certificate, registered=registered, limits=terms.limits),
        TlsTransport(certificate, registered=registered, limits=terms.limits),
    )


def _targets(settings: ServerSettings) -> list[Target]:
    """Return the other servers, to be asked whether this identity is alive elsewhere."""
    found = zip(settings.server_endpoints, settings.descriptor.committee_keys, strict=True)
    return [
        Target(endpoint.host, endpoint.port, key)
        for index, (endpoint, key) in enumerate(found)
        if index != settings.index
    ]
