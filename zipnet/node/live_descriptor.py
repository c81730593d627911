"""The version of the descriptor in force at one node, and those before it (decision 0007).

Rules:

1. A version takes the place of the one before it only as ``zipnet.protocol.succession`` allows.
2. Where the node keeps anything it is durable before anything is done under it. The first entry of
   the journal is the version the committee's log began under; a restarted server begins its replay
   there, whatever file it is given by then.
3. Who dials, admits or verifies by a descriptor is told of each new one, in the order of asking.
4. A server that missed an adoption may not know who leads by now. What another server goes by it
   goes by as well, to dial and to admit; it keeps it only when its own log says so.
5. Where a server was to be dialled elsewhere than the descriptor says, it still is, as long as the
   descriptor says the same of it.
6. Whom a version names may be connected to from the moment it is gone by.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError, StorageError, VerificationError
from zipnet.node.upstreams import endpoints_of
from zipnet.protocol.succession import versions_of
from zipnet.settings.values import Endpoint
from zipnet.transport.egress import allow_egress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.ports import Journal
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor

__all__ = [
    "LiveDescriptor",
    "certificates_before",
    "certificates_of",
    "moved_endpoints",
    "nodes_of",
    "remembered_versions",
]


def nodes_of(descriptor: TrustedDescriptor) -> tuple[NodeEntry, ...]:
    """Return every node a descriptor registers."""
    found = descriptor.descriptor
    return (*found.servers, *(entry.node for entry in found.aggregators))


def certificates_of(descriptor: TrustedDescriptor) -> dict[bytes, bytes]:
    """Return certificate by Ed25519 key for every node a descriptor registers."""
    return {node.identity.ed25519: node.certificate for node in nodes_of(descriptor)}


def certificates_before(descriptor: TrustedDescriptor) -> dict[bytes, bytes]:
    """Return the certificates of the version before, which are good until the version after."""
    return certificates_of(descriptor.earlier[-1]) if descriptor.earlier else {}


def remembered_versions(journal: Journal, given: TrustedDescriptor) -> TrustedDescriptor | None:
    """Return the newest version a node has gone by; None where it goes by none yet.

    Args:
        journal: Files of the versions, oldest first.
        given: What the settings name: that version, an older or a newer one.

    Raises:
        StorageError: What is kept does not hold together.
        ConfigError: It is not of the instance that is given.
    """
    files = tuple(journal.entries())
    if not files:
        return None
    try:
        newest = versions_of(files)
    except VerificationError as error:
        raise StorageError(
            f"the versions of the descriptor in the state folder do not hold together: {error}",
            hint="restore the folder, or replace this server",
        ) from error
    same = [item for item in (*newest.earlier, newest) if item.version == given.version]
    digest = given.descriptor.digest
    if newest.group != given.group or any(one.descriptor.digest != digest for one in same):
        raise ConfigError(
            f"version {given.version} of the descriptor is another one than this server went by",
            hint="give the file the operator published",
        )
    return newest


class LiveDescriptor:
    """What a node goes by.

    Args:
        current: The newest version, with those before it.
        endpoints: Where to dial each server, by its index, as the settings say.
        journal: Where versions are kept; None keeps them for this process only.

    Attributes:
        current: The version in force.
        endpoints: Where to dial each server of it.
    """

    def __init__(
        self,
        current: TrustedDescriptor,
        endpoints: Sequence[Endpoint],
        journal: Journal | None = None,
    ) -> None:
        self.current = current
        self.endpoints = tuple(endpoints)
        self._journal = journal
        self._kept = len(current.earlier) + 1
        self._told: list[Callable[[TrustedDescriptor], None]] = []
        allow_egress(endpoints_of(current.descriptor))

    def tell(self, callback: Callable[[TrustedDescriptor], None]) -> None:
        """Have a part told of each new version."""
        self._told.append(callback)

    async def use(self, new: TrustedDescriptor, *, heard: bool = False) -> bool:
        """Go by a version from now on; False where nothing is new (a replay of the log).

        Args:
            new: The version, with those before it.
            heard: Whether another server said so, and not the log (rule 4).

        Raises:
            SafeMode: When it could not be made durable.
        """
        if not heard:
            await self._keep(new)
        known = self.current  # another one may have been heard of meanwhile
        newer = (new.version, len(new.earlier)) > (known.version, len(known.earlier))
        # Of two that follow one version the log takes one, whatever was heard.
        other = new.version == known.version and new.descriptor.digest != known.descriptor.digest
        if not newer and (heard or not other):
            return False
        self.endpoints = moved_endpoints(self.endpoints, self.current, new)
        self.current = new
        allow_egress(endpoints_of(new.descriptor))
        for callback in self._told:
            callback(new)
        return True

    async def _keep(self, new: TrustedDescriptor) -> None:
        files = [item.descriptor.file for item in (*new.earlier, new)][self._kept :]
        self._kept += len(files)
        if self._journal is None:
            return
        for file in files:
            await asyncio.to_thread(self._journal.append, file)

    def file(self, version: int) -> bytes | None:
        """Return the file of a version, None where it is not known here; 0 is the newest."""
        for item in (self.current, *self.current.earlier):
            if version in (0, item.version):
                return item.descriptor.file
        return None


def moved_endpoints(
    endpoints: Sequence[Endpoint], old: TrustedDescriptor, new: TrustedDescriptor
) -> tuple[Endpoint, ...]:
    """Return where to dial each server of a later version (rule 5)."""
    pairs = zip(endpoints, old.descriptor.servers, new.descriptor.servers, strict=True)
    return tuple(
        endpoint
        if (before.host, before.port, before.peer_id) == (after.host, after.port, after.peer_id)
        else Endpoint(after.host, after.port)
        for endpoint, before, after in pairs
    )
