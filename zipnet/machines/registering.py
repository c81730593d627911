"""A registration on its way: made from the committee's announcements, secrets held until accepted.

Rules (protocol.md §4.1, §7):

1. Every committee server's announcement is there, in order, and signed by that server.
2. The client encapsulates to each key once, with fresh randomness that is dropped at once.
3. The shared secrets live here only until the committee answers: they become chain keys, or they
   are wiped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.kem import encapsulate
from zipnet.protocol.registration import (
    NO_EVIDENCE,
    Encapsulation,
    decode_announcement,
    sign_registration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import Digest, ServerIndex
    from zipnet.protocol.registration import KemAnnouncement
    from zipnet.protocol.secret import Secret

__all__ = ["PendingRegistration", "prepare_registration"]


@dataclass(frozen=True, slots=True)
class PendingRegistration:
    """What was sent, and the secrets that are worth something once it is accepted.

    Attributes:
        blob: The signed registration.
        shared: KEM epoch and shared secret per server.
    """

    blob: bytes = field(repr=False)
    shared: Mapping[ServerIndex, tuple[int, Secret]] = field(repr=False)

    def wipe(self) -> None:
        """Overwrite the shared secrets."""
        for _, secret in self.shared.values():
            secret.wipe()


def prepare_registration(
    blobs: Sequence[bytes],
    descriptor: TrustedDescriptor,
    identity: Identity,
    *,
    serial: int,
    draw: Callable[[int], bytes],
    evidence: Digest = NO_EVIDENCE,
) -> PendingRegistration:
    """Verify the announcements, encapsulate to every server and sign the registration.

    Args:
        blobs: One announcement per committee server, in server order.
        descriptor: The instance, verified.
        identity: The client.
        serial: Larger than in any earlier registration of this identity.
        draw: Source of random bytes.
        evidence: Content digest of the evidence that goes with it, where one is due.

    Raises:
        RemoteProtocolError: When an announcement is missing, malformed or out of order.
        VerificationError: When an announcement is not signed by its server.
    """
    announcements = _verified(blobs, descriptor)
    shared: dict[ServerIndex, tuple[int, Secret]] = {}
    items: list[Encapsulation] = []
    for announcement in announcements:
        ciphertext, secret = encapsulate(announcement.public, draw)
        shared[announcement.server] = (announcement.epoch, secret)
        items.append(Encapsulation(announcement.server, announcement.epoch, ciphertext))
    blob = sign_registration(descriptor.group, serial, items, identity, evidence=evidence)
    return PendingRegistration(blob, shared)


def _verified(blobs: Sequence[bytes], descriptor: TrustedDescriptor) -> list[KemAnnouncement]:
    committee = descriptor.committee
    if len(blobs) != len(committee):
        raise RemoteProtocolError(
            f"{len(blobs)} KEM announcements came for a committee of {len(committee)}"
        )
    announcements = [decode_announcement(blob, descriptor.group, committee) for blob in blobs]
    if [a.server for a in announcements] != list(range(len(committee))):
        raise RemoteProtocolError("KEM announcements are not in server order")
    return announcements
