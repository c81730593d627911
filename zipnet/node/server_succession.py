"""A committee server's part in the descriptor's versions: where it begins, and how it goes on.

Decision 0007. The operator puts the next version where one server finds its descriptor; that server
offers it to the log, and every server goes by it from the moment the log has adopted it.

Rules:

1. A server begins with the newest version it went by. One that went by none with itself in it asks
   the others for the versions before its own, since the log may begin under those.
2. The descriptor's file is read again when it changes. What may not follow is said in the log once,
   and passed over; so is what names a committee secret that was not given here.
3. While it has no leader it asks the others what they go by: it may have missed an adoption, and
   not know who leads by now. Where it has no link at all it asks as a reader, who is let in
   whatever was rotated: it may have missed so much that none of its keys is good any more.
4. A version without this server in it ends it: it proposes and signs nothing more, and stops.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, StorageError, VerificationError, ZipnetError
from zipnet.machines.server_effects import DescriptorGiven
from zipnet.node.committee_secret import watch_secret
from zipnet.node.live_descriptor import (
    certificates_before,
    certificates_of,
    moved_endpoints,
    nodes_of,
    remembered_versions,
)
from zipnet.node.nameless import ASK_TIMEOUT_S, NamelessAsker, as_reader
from zipnet.node.server_state import VERSIONS_FILE
from zipnet.observe.log import get_logger
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES
from zipnet.protocol.ids import ServerIndex, content_digest, short_peer_id
from zipnet.protocol.succession import succeed
from zipnet.storage.journal import FileJournal
from zipnet.transport.certificate import registered_certificate
from zipnet.transport.egress import allow_egress
from zipnet.transport.versions import ask_earlier, fetch_later
from zipnet.wire.frames import CloseCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from zipnet.node.audit import AuditTrail
    from zipnet.node.listen import NodeListener
    from zipnet.node.server_parts import ServerParts
    from zipnet.node.server_state import ServerState
    from zipnet.observe.health import Health
    from zipnet.ports import Journal
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import Digest, PeerId
    from zipnet.settings import ServerSettings
    from zipnet.transport.dial import PersistentLink
    from zipnet.transport.session import SessionTerms
    from zipnet.transport.tls import TlsTransport

__all__ = ["ServerSuccession", "rotated_keys", "settings_for_readers", "settings_in_force"]

_LOOK_S: Final = 0.5
_ASK_AGAIN_S: Final = 1.0
_ALONE_LOOKS: Final = 3
_log = get_logger(__name__)


async def settings_in_force(
    settings: ServerSettings, state: ServerState, terms: SessionTerms, transport: TlsTransport
) -> ServerSettings:
    """Return the settings with the newest version this server went by, and all before it (rule 1).

    Args:
        settings: As they were loaded.
        state: What the server remembers.
        terms: What it says in handshakes; asking, it says nothing about itself.
        transport: Engine to ask with.

    Raises:
        ConfigError: This server is not of the committee any more, or of another instance.
        StorageError: What is kept does not hold together.
        SafeMode: The first version could not be kept.
    """
    given = settings.descriptor
    known = None if state.versions is None else remembered_versions(state.versions, given)
    if known is None or not _ever_had(known, settings.identity.peer_id):
        known = await _with_earlier(settings, terms, transport)
        if state.versions is not None:
            _keep_line(state.versions, known)
    index = known.server_index(settings.identity.peer_id)
    if index is None:
        raise _replaced(known)
    transport.register(certificates_of(known), certificates_before(known))
    private_key = settings.identity.ed25519_private_key()
    transport.present(
        registered_certificate(private_key, known.descriptor.servers[index].certificate)
    )
    allow_egress((node.host, node.port) for node in nodes_of(known))
    return replace(
        settings,
        descriptor=known,
        index=index,
        node=known.descriptor.servers[index],
        server_endpoints=moved_endpoints(settings.server_endpoints, given, known),
    )


def _ever_had(known: TrustedDescriptor, peer: PeerId) -> bool:
    return any(item.server_index(peer) is not None for item in (*known.earlier, known))


def _keep_line(journal: Journal, known: TrustedDescriptor) -> None:
    """Keep the versions a server begins with; some are there where it was killed over this."""
    files = [item.descriptor.file for item in (*known.earlier, known)]
    kept = list(journal.entries())
    if kept != files[: len(kept)]:
        raise StorageError(
            "the versions of the descriptor in the state folder are not those of this instance",
            hint="begin with an empty state folder",
        )
    for file in files[len(kept) :]:
        journal.append(file)


def settings_for_readers(settings: ServerSettings, folder: Path) -> ServerSettings:
    """Return the settings with all versions that records of a state folder may be of.

    For safe mode: where the folder refuses even that, the settings are what they were.
    """
    try:
        journal = FileJournal(folder / VERSIONS_FILE, identity=bytes(settings.identity.peer_id))
        try:
            known = remembered_versions(journal, settings.descriptor)
        finally:
            journal.close()
    except (StorageError, ConfigError) as error:
        _log.warning("versions_not_read", error=str(error))
        return settings
    return settings if known is None else replace(settings, descriptor=known)


def _replaced(descriptor: TrustedDescriptor) -> ConfigError:
    return ConfigError(
        f"version {descriptor.version} of the descriptor has another server in this one's place",
        hint="stop this server for good, and wipe it with `zipnet decommission`",
    )


async def _with_earlier(
    settings: ServerSettings, terms: SessionTerms, transport: TlsTransport
) -> TrustedDescriptor:
    given = settings.descriptor
    if given.descriptor.previous is None or given.earlier:
        return given
    asking = as_reader(terms)
    while True:
        for index, endpoint in enumerate(settings.server_endpoints):
            if index == settings.index:
                continue
            node = given.descriptor.servers[index]
            try:
                connection = await transport.connect(
                    endpoint.host,
                    endpoint.port,
                    expected_key=node.identity.ed25519,
                    timeout_s=ASK_TIMEOUT_S,
                )
                return await ask_earlier(connection, asking, given, timeout_s=ASK_TIMEOUT_S)
            except ZipnetError as error:
                _log.info("versions_not_fetched", server=index, error=str(error))
        await asyncio.sleep(_ASK_AGAIN_S)


def rotated_keys(old: TrustedDescriptor, new: TrustedDescriptor) -> list[tuple[str, str]]:
    """Return which keys a version changes: the kind, and the id of the new one."""
    found: list[tuple[str, str]] = []
    if old.descriptor.operator.peer_id != new.descriptor.operator.peer_id:
        found.append(("descriptor_key", short_peer_id(new.descriptor.operator.peer_id)))
    if old.descriptor.secret_fingerprint != new.descriptor.secret_fingerprint:
        found.append(("committee_secret", new.descriptor.secret_fingerprint.hex()[:16]))
    before = {node.name: node for node in nodes_of(old)}
    seats = zip(old.descriptor.servers, new.descriptor.servers, strict=True)
    found += [
        ("identity", short_peer_id(now.peer_id)) for was, now in seats if was.peer_id != now.peer_id
    ]
    tree = {entry.node.name for entry in new.descriptor.aggregators}
    for node in nodes_of(new):
        was_there = before.get(node.name)
        if was_there is None or was_there.certificate == node.certificate:
            continue
        if was_there.peer_id == node.peer_id:
            found.append(("tls", content_digest(node.certificate).hex()[:16]))
        elif node.name in tree:  # a seat may change its server's name too: it was looked at above
            found.append(("identity", short_peer_id(node.peer_id)))
    return found


class ServerSuccession:
    """Follows the descriptor's versions for one running server.

    Args:
        settings: Its settings, in force.
        parts: Its parts.
        listener: Who is admitted.
        transports: Where certificates are registered.
        link_to: Makes the link to a server.
        terms: What it says in handshakes.
        audit: Where adoptions are written down.
        health: Where it shows that the committee secret in force was not given to this server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        parts: ServerParts,
        *,
        listener: NodeListener,
        transport: TlsTransport,
        link_to: Callable[[ServerIndex], PersistentLink],
        terms: SessionTerms,
        audit: AuditTrail,
        health: Health,
    ) -> None:
        self._health = health
        self._nameless = NamelessAsker(terms)
        self._settings = settings
        self._parts = parts
        self._listener = listener
        self._transport = transport
        self._link_to = link_to
        self._audit = audit
        self._before = parts.live.current
        self._endpoints = parts.live.endpoints
        self._left = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        parts.live.tell(self._on_version)

    @property
    def is_out(self) -> bool:
        """Whether a version came without this server."""
        return self._left.is_set()

    async def run(self, stop: asyncio.Event, halt: Callable[[], Awaitable[None]]) -> None:
        """Watch the file, and end the node when it is replaced; until cancelled.

        Args:
            stop: Ends the node.
            halt: Makes its consensus engine fall silent.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_file())
            group.create_task(
                watch_secret(
                    self._parts.committee_secrets,
                    self._settings.next_committee_secret,
                    self._health,
                    self._on_secret,
                )
            )
            group.create_task(self._listen())
            await self._left.wait()
            await halt()
            stop.set()

    def _on_secret(self, fingerprint: Digest) -> None:
        self._audit.note(
            "secret_read",
            setting="NEXT_COMMITTEE_SECRET",
            key_id=fingerprint.hex()[:16],
            source="file",
        )

    def require_member(self) -> None:
        """Say at the end of a run why it ended, where this server was replaced.

        Raises:
            ConfigError: It was.
        """
        if self.is_out:
            raise _replaced(self._parts.live.current)

    # -- a new version -------------------------------------------------------------------------

    def _on_version(self, new: TrustedDescriptor) -> None:
        old, self._before = self._before, new
        endpoints, self._endpoints = self._endpoints, self._parts.live.endpoints
        _log.info("descriptor_adopted", version=new.version)
        self._audit.note("descriptor_adopted", descriptor_version=new.version)
        for kind, key_id in rotated_keys(old, new):
            self._audit.note("key_rotated", mode=kind, key_id=key_id)
        parts = self._parts
        if new.server_index(parts.identity.peer_id) is None:
            _log.error("server_replaced", version=new.version)
            self._left.set()
            return
        parts.committee_secrets.use(new)
        self._transport.register(certificates_of(new), certificates_before(new))
        own = new.descriptor.servers[self._settings.index].certificate
        if own != old.descriptor.servers[self._settings.index].certificate:
            private_key = parts.identity.ed25519_private_key()
            self._transport.present(registered_certificate(private_key, own))
        allow_egress((node.host, node.port) for node in nodes_of(new))
        parts.keeper.use_descriptor(new)
        parts.revocations.use_descriptor(new)
        if parts.kem_evidence is not None:
            parts.kem_evidence.use_descriptor(new)
        for session in self._listener.use_descriptor(new):
            closing = session.close(code=CloseCode.REFUSED, reason="not_registered")
            task = asyncio.get_running_loop().create_task(closing)
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        nodes = zip(old.descriptor.servers, new.descriptor.servers, strict=True)
        for position, (before, after) in enumerate(nodes):
            seat = ServerIndex(position)
            moved = endpoints[position] != self._endpoints[position]
            if seat != self._settings.index and (
                moved
                or (before.identity, before.certificate) != (after.identity, after.certificate)
            ):
                parts.mesh.replace(seat, self._link_to(seat))

    async def _listen(self) -> None:
        """Rule 3: ask whoever is here, as long as the log tells nothing."""
        consensus, mesh, live = self._parts.consensus, self._parts.mesh, self._parts.live
        alone = 0
        while True:
            await asyncio.sleep(_ASK_AGAIN_S)
            if consensus.leader() is not None and consensus.caught_up():
                continue
            alone = 0 if mesh.connected() else alone + 1
            anybody = alone >= _ALONE_LOOKS
            for server in mesh.members if anybody else sorted(mesh.connected()):
                try:
                    heard = await self._hear(ServerIndex(server))
                except ZipnetError as error:
                    _log.debug("versions_not_fetched", server=int(server), error=str(error))
                    continue
                if await live.use(heard, heard=True):
                    break

    async def _hear(self, server: ServerIndex) -> TrustedDescriptor:
        """Ask one server what it goes by: over the link, or as a reader where there is none."""
        live, link = self._parts.live, self._parts.mesh.links[server]
        if link.session is not None:
            return await fetch_later(link, live.current)
        key = live.current.committee[server].ed25519
        return await self._nameless.hear(live.endpoints[server], key, live.current)

    # -- the operator's file -------------------------------------------------------------------

    async def _watch_file(self) -> None:
        """Rule 2."""
        seen: tuple[bytes, int, int] | None = None
        while True:
            data = await asyncio.to_thread(self._read)
            now = (data, self._parts.live.current.version, len(self._parts.committee_secrets))
            if data and now != seen:
                await self._take(data)
            seen = now
            await asyncio.sleep(_LOOK_S)

    def _read(self) -> bytes:
        try:
            with self._settings.descriptor_file.open("rb") as file:
                return file.read(MAX_DESCRIPTOR_BYTES + 1)
        except OSError:
            return b""

    async def _take(self, data: bytes) -> None:
        current = self._parts.live.current
        known = (current, *current.earlier)
        if any(item.descriptor.file == data for item in known):
            return
        try:
            given = succeed(current, data)
        except VerificationError as error:
            _log.warning("descriptor_refused", error=str(error))
            return
        if not self._parts.committee_secrets.holds(given):
            _log.warning("descriptor_refused", error="it names a committee secret not given here")
            return
        _log.info("descriptor_given", version=given.version)
        self._audit.note("descriptor_given", descriptor_version=given.version)
        await self._parts.events.post(DescriptorGiven(given))
