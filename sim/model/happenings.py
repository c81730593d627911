"""What happens to a simulated network from outside: messages, comings and goings, faults."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from zipnet.protocol.slots import max_message_bytes

if TYPE_CHECKING:
    from sim.model.publishing import ModelClient
    from sim.model.scenario import Fault
    from sim.model.server import ModelServer
    from sim.model.world import World

__all__ = ["Happenings", "go_offline", "go_online"]

_SLOW = 0.1


class Happenings:
    """Arms everything a scenario has in store."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tickets = 0

    def begin(self) -> None:
        """Arm it all; times are counted from now."""
        world, loop = self._world, asyncio.get_running_loop()
        load = world.scenario.load
        for client in world.clients[: load.talkers]:
            rng = random.Random(f"{world.seed}/talk/{client.name}")
            at = loop.time() + load.start_s
            for count in range(load.messages):
                if count and load.interval_s:
                    at += rng.expovariate(1 / load.interval_s)
                loop.call_at(at, self._say, client, rng)
        self._begin_churn()
        for fault in world.scenario.faults:
            loop.call_at(loop.time() + fault.at_s, self._strike, fault)

    def _say(self, client: ModelClient, rng: random.Random) -> None:
        self._tickets += 1
        size = min(
            self._world.scenario.load.message_bytes, max_message_bytes(self._world.group.params)
        )
        client.say(rng.randbytes(size), self._tickets)

    # -- churn ---------------------------------------------------------------------------------

    def _begin_churn(self) -> None:
        world, churn = self._world, self._world.scenario.churn
        moving = int(len(world.clients) * churn.share)
        # The last ones move, so that the first, who talk, may stay.
        for client in world.clients[len(world.clients) - moving :]:
            rng = random.Random(f"{world.seed}/churn/{client.name}")
            asyncio.get_running_loop().call_later(
                rng.expovariate(1 / churn.up_s), self._leave, client, rng
            )

    def _leave(self, client: ModelClient, rng: random.Random) -> None:
        go_offline(self._world, client)
        back = rng.expovariate(1 / self._world.scenario.churn.down_s)
        asyncio.get_running_loop().call_later(back, self._return, client, rng)

    def _return(self, client: ModelClient, rng: random.Random) -> None:
        churn = self._world.scenario.churn
        go_online(self._world, client)
        if rng.random() < churn.rejoin:
            client.register()
        asyncio.get_running_loop().call_later(
            rng.expovariate(1 / churn.up_s), self._leave, client, rng
        )

    # -- faults --------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        server = self._victim(fault)
        loop = asyncio.get_running_loop()
        self._world.note("fault_began", server.name, value=fault.for_s, note=fault.kind)
        match fault.kind:
            case "crash":
                if server.machine is not None:
                    server.crash()
                    loop.call_later(fault.for_s, self._restart, server)
            case "partition":
                server.port.cut = True
                loop.call_later(fault.for_s, self._heal, server)
            case "slow":
                self._scale(server, _SLOW)
                loop.call_later(fault.for_s, self._speed_up, server)

    def _victim(self, fault: Fault) -> ModelServer:
        servers = self._world.servers
        if fault.server >= 0:
            return servers[fault.server % len(servers)]
        for server in servers:
            leader = None if server.consensus is None else server.consensus.leader()
            if leader is not None:
                return servers[leader]
        return servers[0]

    def _restart(self, server: ModelServer) -> None:
        server.begin(server.start())
        self._world.note("fault_ended", server.name, note="crash")

    def _heal(self, server: ModelServer) -> None:
        server.port.cut = False
        self._world.note("fault_ended", server.name, note="partition")

    def _speed_up(self, server: ModelServer) -> None:
        self._scale(server, 1 / _SLOW)
        self._world.note("fault_ended", server.name, note="slow")

    @staticmethod
    def _scale(server: ModelServer, factor: float) -> None:
        server.port.up *= factor
        server.port.down *= factor


def go_offline(world: World, client: ModelClient) -> None:
    """Take a client away: its session ends and nothing reaches it."""
    client.port.online = False
    client.port.life += 1
    client.leaf.leave(client.identity.peer_id)
    world.note("client_left", client.name)


def go_online(world: World, client: ModelClient) -> None:
    """Bring a client back with what it had."""
    client.port.online = True
    client.port.life += 1
    client.leaf.join(client.identity.peer_id, client)
    world.note("client_returned", client.name)
