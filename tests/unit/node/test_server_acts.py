"""What arrives while the machine is busy must not trip over what the machine does meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.harness.committee import SMALL
from zipnet.machines.server_effects import PartialArrived, StepChains
from zipnet.node.server_acts import ServerActs
from zipnet.protocol.aggregate import Aggregate, Partial
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, ServerIndex, content_digest
from zipnet.protocol.participants import Participants
from zipnet.storage.memory import MemoryBlobs

if TYPE_CHECKING:
    import pytest

    from zipnet.machines.server_effects import Event

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
