"""What arrives while the machine is busy must not trip over what the machine does meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from tests.harness.committee import SMALL, make_draw, make_identity
from zipnet.machines.registry import RegistryView
from zipnet.machines.server_effects import ClientAdmitted, PartialArrived, StepChains
from zipnet.node.server_acts import ServerActs
from zipnet.node.server_clients import ServerClients
from zipnet.protocol.aggregate import Aggregate, Partial
from zipnet.protocol.ids import (
    Digest,
    GroupId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    content_digest,
)
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.participants import Participants
from zipnet.protocol.registration import Encapsulation, RegistryChange, sign_registration
from zipnet.protocol.secret import Secret
from zipnet.storage.custody import KeyCustody
from zipnet.storage.memory import MemoryBlobs, MemoryCustody

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from zipnet.machines.server_effects import Event

_T = TypeVar("_T")
ZERO = Digest(bytes(32))
BODY = bytes(SMALL.body_bytes)


async def test_a_partial_that_waits_for_a_full_queue_meets_a_log_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = b"a partial"
    posted: dict[ServerIndex, Digest] = {ServerIndex(0): content_digest(blob)}
    seen: list[Event] = []

    class Full:
        """A queue that has room again only after the log has grown."""

        async def post(self, event: Event) -> None:
            posted[ServerIndex(1)] = content_digest(b"another")
            seen.append(event)

    state = SimpleNamespace(chosen=None, partials=posted)
    parts: Any = SimpleNamespace(
        machine=SimpleNamespace(server=ServerIndex(2), state=state),
        blobs=SimpleNamespace(put=lambda blob, expected=None: expected or content_digest(blob)),
        descriptor=SimpleNamespace(params=SMALL),
        events=Full(),
    )
    acts = ServerActs(parts)
    monkeypatch.setattr(acts, "_require_partial", lambda _blob, _server: None)
    await acts.take_blob(blob)
    assert seen == [PartialArrived(ServerIndex(0), content_digest(blob))]


async def test_a_closed_round_leaves_no_blob_of_others_in_memory() -> None:
    partial = Partial(RoundNumber(4), ZERO, ServerIndex(0), ZERO, BODY).encode()
    members = Participants(RegistryIndex(i) for i in range(3))
    aggregate = Aggregate(RoundNumber(4), ZERO, members, BODY).encode()
    blobs = MemoryBlobs()

    class Taking:
        async def post(self, event: Event) -> None:
            del event

    parts: Any = SimpleNamespace(
        machine=SimpleNamespace(
            server=ServerIndex(2), state=SimpleNamespace(chosen=None, partials={})
        ),
        blobs=blobs,
        custody=SimpleNamespace(step_past=lambda _number: None, close=lambda: None),
        descriptor=SimpleNamespace(params=SMALL),
        events=Taking(),
    )
    acts = ServerActs(parts)
    await acts.take_blob(partial)
    await acts.take_aggregate(aggregate)
    digests = [content_digest(partial), content_digest(aggregate)]
    assert all(blobs.get(digest) is not None for digest in digests)
    await acts.perform(StepChains(RoundNumber(4)))
    assert all(blobs.get(digest) is None for digest in digests)
    await acts.close()


async def test_a_client_retired_while_its_chain_begins_leaves_nothing_behind() -> None:
    draw, group = make_draw("clients"), GroupId(bytes(32))
    seed, epoch = Secret(draw(32)), 7
    pair = KemKeyPair.from_seed(seed)
    items = []
    for server in range(3):
        ciphertext, secret = encapsulate(pair.public, draw)
        secret.wipe()
        items.append(Encapsulation(ServerIndex(server), epoch, ciphertext))
    client = make_identity("client")
    blob = sign_registration(group, 1, items, client)
    digest = content_digest(blob)
    registry, blobs = RegistryView(), MemoryBlobs()
    posted: list[Event] = []
    index, first = RegistryIndex(0), RoundNumber(1)
    change = RegistryChange(index, (client.peer_id, client.public.ed25519), digest, first)
    registry.apply((change,))
    custody = KeyCustody(MemoryCustody(), group=group, max_skip_rounds=100)
    custody.add_kem(epoch, seed, ZERO)

    async def in_custody(call: Callable[[], _T]) -> _T:
        # The log retires it, and what it said is performed, before this thread gets to the call.
        if registry.is_active(index):
            registry.apply((RegistryChange(index, None, None, first),))
            custody.retire(index)
            blobs.drop([digest])
        return call()

    async def obtain(_digest: Digest, _holders: tuple[ServerIndex, ...]) -> bytes:
        return blob

    async def post(event: Event) -> None:
        posted.append(event)

    parts: Any = SimpleNamespace(
        machine=SimpleNamespace(server=ServerIndex(1), state=SimpleNamespace(registry=registry)),
        blobs=blobs,
        custody=custody,
        descriptor=SimpleNamespace(group=group, committee=(None, None, None)),
        client_evidence=None,
        events=SimpleNamespace(post=post),
    )
    await ServerClients(parts, in_custody, obtain).admit(change)
    custody.step_past(RoundNumber(1))
    assert custody.chain_count == 0
    assert blobs.get(digest) is None
    assert posted == [ClientAdmitted(index)]  # for the round under way
