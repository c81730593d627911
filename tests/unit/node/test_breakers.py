"""What keeps failing is left alone for a while, and shows: uplinks, other servers, the gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import CollectorRegistry

from zipnet.errors import AdmissionError, TransportError
from zipnet.node.breakers import Breakers
from zipnet.node.mesh import CommitteeMesh
from zipnet.node.uplink import deliver_aggregate
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.ids import ServerIndex
from zipnet.wire.frames import Frame
from zipnet.wire.messages import GetClock, Kind

if TYPE_CHECKING:
    from zipnet.errors import ZipnetError
    from zipnet.transport.dial import PersistentLink


class Link:
    """A link that is up, whose far node answers as the test says."""

    def __init__(self) -> None:
        self.session: object | None = object()
        self.error: ZipnetError | None = TransportError("no answer")
        self.asked = 0

    async def wait_up(self) -> None:
        await asyncio.sleep(0)

    async def request(self, kind: int, _payload: bytes, _timeout_s: float | None = None) -> Frame:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return Frame(kind, 1, b"fine")


class Clocked:
    """Breakers on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
        self.breakers = Breakers(
            self.metrics, failures=3, cool_s=1.0, longest_s=4.0, monotonic=lambda: self.now
        )

    def value(self, name: str, target: str) -> float | None:
        labels = {"zipnet_instance": "acme.test", "role": "server", "target": target}
        return self.metrics.registry.get_sample_value(name, labels)


async def _ask(mesh: CommitteeMesh, server: int = 1) -> bytes:
    return await mesh.request(ServerIndex(server), Kind.GET_CLOCK, GetClock(), timeout_s=1.0)


@pytest.mark.requirement("A4")
async def test_a_server_that_does_not_answer_is_left_alone_and_asked_again_later() -> None:
    at, silent, fine = Clocked(), Link(), Link()
    fine.error = None
    links = {ServerIndex(1): silent, ServerIndex(2): fine}
    mesh = CommitteeMesh(cast("dict[ServerIndex, PersistentLink]", links), at.breakers)
    for _ in range(10):
        with pytest.raises(TransportError):
            await _ask(mesh)
    assert silent.asked == 3, "then it was left alone"
    assert await _ask(mesh, 2) == b"fine", "and nobody else"
    at.now = 0.75
    assert at.value("zipnet_breaker_open_total", "server_1") == 1
    assert at.value("zipnet_breaker_open_seconds", "server_1") == 0.75
    at.now = 1.0
    silent.error = None
    assert await _ask(mesh) == b"fine"
    assert await _ask(mesh) == b"fine"
    assert at.value("zipnet_breaker_open_seconds", "server_1") == 0


async def test_a_refusal_is_an_answer_and_a_link_that_is_down_is_the_diallers_business() -> None:
    at, link = Clocked(), Link()
    mesh = CommitteeMesh(
        cast("dict[ServerIndex, PersistentLink]", {ServerIndex(1): link}), at.breakers
    )
    link.error = AdmissionError("no", code="not_ready")
    for _ in range(10):
        with pytest.raises(AdmissionError):
            await _ask(mesh)
    link.session, link.error = None, TransportError("down")
    for _ in range(10):
        with pytest.raises(TransportError, match="down"):
            await _ask(mesh)
    assert at.value("zipnet_breaker_open_total", "server_1") is None


async def test_an_uplink_that_fails_is_tried_ever_more_rarely_and_the_others_get_theirs() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    breakers = Breakers(metrics, failures=3, cool_s=0.3, longest_s=0.6)
    broken, fine = Link(), Link()
    fine.error = None
    links = cast("list[PersistentLink]", [broken, fine])
    taken = await deliver_aggregate(
        b"blob", links, round_number=1, deadline_s=1.0, metrics=metrics, breakers=breakers
    )
    assert (taken, fine.asked) == (1, 1)
    assert 4 <= broken.asked <= 6, "20 without a breaker"
    labels = {"zipnet_instance": "acme.test", "role": "server", "target": "server_0"}
    opened = metrics.registry.get_sample_value("zipnet_breaker_open_total", labels)
    assert opened is not None
    assert opened >= 2


def test_open_targets_are_named_until_they_answer_well() -> None:
    now = 0.0
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    breakers = Breakers(metrics, failures=2, monotonic=lambda: now)
    for target in ("server_1", "server_2", "server_2"):
        assert breakers.allows(target)
        breakers.failed(target)
    now = 0.1
    assert breakers.open_targets() == ["server_2"]
    now = 10.0
    assert breakers.allows("server_2")
    breakers.succeeded("server_2")
    assert breakers.open_targets() == []
