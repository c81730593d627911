"""What arrives while the machine is busy must not trip over what the machine does meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from zipnet.machines.server_effects import PartialArrived
from zipnet.node.server_acts import ServerActs
from zipnet.protocol.ids import ServerIndex, content_digest

if TYPE_CHECKING:
    import pytest

    from zipnet.machines.server_effects import Event
    from zipnet.protocol.ids import Digest


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
        descriptor=SimpleNamespace(params=None),
        events=Full(),
    )
    acts = ServerActs(parts)
    monkeypatch.setattr(acts, "_require_partial", lambda _blob, _server: None)
    await acts.take_blob(blob)
    assert seen == [PartialArrived(ServerIndex(0), content_digest(blob))]
