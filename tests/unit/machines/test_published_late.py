"""A server that was behind when a round opened tells its subscribers as soon as it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.servers import ServerCluster
from zipnet.machines.server_effects import (
    Committed,
    Effect,
    Event,
    Instant,
    PublishOpened,
    StandingChanged,
    TimerFired,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_round_that_opened_behind_its_back_is_published_once(tmp_path: Path) -> None:
    cluster = ServerCluster(tmp_path)
    try:
        cluster.register("a")
        cluster.register("b")
        late = cluster.servers[2]
        late.frozen = True
        header = cluster.open_round()
        machine = late.machine
        assert machine is not None

        def tell(event: Event) -> list[Effect]:
            effects = machine.step(event, Instant(cluster.now, 1_900_000_000_000))
            return [effect for effect in effects if isinstance(effect, PublishOpened)]

        assert tell(StandingChanged(leads=False, caught_up=False)) == []
        assert tell(Committed(tuple(cluster.log[late.applied :]))) == []
        (told,) = tell(StandingChanged(leads=False, caught_up=True))
        assert isinstance(told, PublishOpened)
        assert told.signed.header == header
        assert tell(TimerFired()) == []
    finally:
        cluster.close()
