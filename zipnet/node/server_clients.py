"""A committee server's side of clients: KEM keys they encapsulate to, chains that begin from it.

Rules:

1. A registration is verified here, by this server, whoever vouched for it in the log; so is the
   evidence it names, where clients are gated.
2. It is kept until the client is retired: a restart begins the chain again from it. A client that
   is retired while its chain begins leaves neither behind once the round under way is closed.
3. One epoch never has two keys; a lost key is followed by the next epoch's.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.machines.server_effects import (
    AnnounceKemKey,
    ClientAdmitted,
    ClientNotAdmitted,
    KemKeyReady,
)
from zipnet.observe.log import get_logger
from zipnet.protocol.ids import Digest, ServerIndex
from zipnet.protocol.kem import KemKeyPair
from zipnet.protocol.registration import (
    Registration,
    RegistryChange,
    decode_registration,
    sign_announcement,
)
from zipnet.protocol.secret import Secret
from zipnet.wire.messages import Kind, PutBlob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zipnet.node.server_parts import ServerParts
    from zipnet.protocol.ids import RegistryIndex

__all__ = ["InCustody", "ServerClients"]

_T = TypeVar("_T")
_ADMISSION_ATTEMPTS = 30
_ADMISSION_PAUSE_S = 1.0


class InCustody(Protocol):
    """Runs a call in key custody's worker thread, in the order asked for."""

    async def __call__(self, call: Callable[[], _T]) -> _T:
        """Return what the call returned."""
        ...


class ServerClients:
    """Admits clients and announces keys for one server.

    Args:
        parts: The server's parts.
        in_custody: The way to key custody.
        obtain_blob: Finds a blob here or at another server.
    """

    def __init__(
        self,
        parts: ServerParts,
        in_custody: InCustody,
        obtain_blob: Callable[[Digest, tuple[ServerIndex, ...]], Awaitable[bytes | None]],
    ) -> None:
        self._parts = parts
        self._server: ServerIndex = parts.machine.server
        self._in_custody = in_custody
        self._obtain_blob = obtain_blob
        self._registered: dict[Digest, list[asyncio.Future[RegistryIndex]]] = {}
        self._log = get_logger()

    def expect_registration(self, registration: Digest) -> asyncio.Future[RegistryIndex]:
        """Return a future for the index, resolved once the client is admitted here."""
        future: asyncio.Future[RegistryIndex] = asyncio.get_running_loop().create_future()
        waiting = self._registered.setdefault(registration, [])
        waiting.append(future)

        def forget(done: asyncio.Future[RegistryIndex]) -> None:
            waiting.remove(done)
            if not waiting and self._registered.get(registration) is waiting:
                del self._registered[registration]

        future.add_done_callback(forget)
        return future

    async def admit(self, change: RegistryChange) -> None:
        """Begin a client's chain from its registration, and tell the machine and whoever waits."""
        parts, index = self._parts, change.index
        admitted = parts.custody.holds(index)
        attempts = 0
        while not admitted and attempts < _ADMISSION_ATTEMPTS:
            if attempts:
                await asyncio.sleep(_ADMISSION_PAUSE_S)
            if not parts.machine.state.registry.is_active(index):
                return
            attempts += 1
            registration = await self._obtain_registration(change)
            if registration is None:
                continue
            attested = await self._is_attested(registration)
            if attested is None:
                continue
            admitted = attested and await self._begin_chain(change, registration)
            break
        if not parts.machine.state.registry.is_active(index):
            await self._take_back(change)
        await parts.events.post(ClientAdmitted(index) if admitted else ClientNotAdmitted(index))
        waiting = self._registered.get(change.registration, ()) if change.registration else ()
        for future in tuple(waiting) if admitted else ():
            if not future.done():
                future.set_result(index)

    async def _is_attested(self, registration: Registration) -> bool | None:
        """Whether the evidence a registration names passes; None when it cannot be had now."""
        watched = self._parts.client_evidence
        if watched is None:
            return True
        evidence = await self._obtain_blob(registration.evidence, self._others())
        if evidence is None:
            return True if watched.excuses_absence else None
        return watched.admits(registration.identity, evidence)

    async def _begin_chain(self, change: RegistryChange, registration: Registration) -> bool:
        custody = self._parts.custody
        mine = registration.for_server(self._server)
        return await self._in_custody(
            lambda: custody.admit(change.index, change.first_round, mine.epoch, mine.ciphertext)
        )

    async def _take_back(self, change: RegistryChange) -> None:
        """Erase what was begun for a client that was retired meanwhile: nothing else would."""
        await self._in_custody(lambda: self._parts.custody.retire(change.index))
        if change.registration is not None:
            await asyncio.to_thread(self._parts.blobs.drop, [change.registration])

    async def _obtain_registration(self, change: RegistryChange) -> Registration | None:
        """Fetch, verify and keep the registration a change names; None if it is not had."""
        parts = self._parts
        if change.registration is None or change.client is None:
            return None
        blob = await self._obtain_blob(change.registration, self._others())
        if blob is None:
            return None
        try:
            registration = decode_registration(
                blob, parts.descriptor.group, len(parts.descriptor.committee)
            )
        except (RemoteProtocolError, VerificationError) as error:
            self._log.warning("registration_refused", reason=error.reason)
            return None
        identity = registration.identity
        if (identity.peer_id, identity.ed25519) != change.client:
            self._log.warning("registration_refused", reason="identity_mismatch")
            return None
        await asyncio.to_thread(parts.blobs.keep, change.registration, blob)
        return registration

    def _others(self) -> tuple[ServerIndex, ...]:
        everyone = range(len(self._parts.descriptor.committee))
        return tuple(ServerIndex(s) for s in everyone if s != self._server)

    async def announce_kem(self, effect: AnnounceKemKey) -> None:
        """Have the key of an epoch, share its announcement, and tell the machine."""
        parts = self._parts
        held = await self._in_custody(lambda: parts.custody.kem_entry(effect.epoch))
        if held is not None and parts.blobs.get(held.announcement) is not None:
            await parts.events.post(KemKeyReady(effect.epoch, held.announcement))
            return
        epoch = max(effect.epoch, effect.announced + 1)
        seed = Secret.random(os.urandom)
        pair = KemKeyPair.from_seed(seed)
        public = pair.public
        pair.close()
        blob = sign_announcement(
            parts.descriptor.group, self._server, epoch, public, parts.identity
        )
        digest = parts.blobs.put(blob)
        await asyncio.to_thread(parts.blobs.keep, digest, blob)
        await self._in_custody(lambda: parts.custody.add_kem(epoch, seed, digest))
        parts.mesh.push_all(Kind.PUT_BLOB, PutBlob(blob=blob))
        await parts.events.post(KemKeyReady(epoch, digest))
