"""The network that is attacked: real processes on 127.0.0.1, honest clients, and what is measured.

Three servers, a root aggregator, and publishers that send cover in every round. The attacker is
this process: it speaks to the nodes over real sockets, with the project's own transports where it
has to shake hands and with bytes of its own where it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tdx.emulator import Emulator, QuoteService
from tdx.policy import Policy
from tests.harness.attested import image
from tests.harness.network import LiveNetwork, wait_for
from zipnet.attestation import PlatformAttestor, PlatformConfig
from zipnet.protocol.attestation import ATTESTATION_OFF, AttestationMode, Gate, make_terms
from zipnet.protocol.identity import Identity
from zipnet.protocol.params import Cadence
from zipnet.protocol.secret import Secret
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, Session, SessionTerms, initiate
from zipnet.transport.tls import TlsTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tdx.guest.source import QuoteSource
    from tests.harness.network import Node
    from zipnet.ports import Connection
    from zipnet.wire.frames import Frame

__all__ = ["COVERS", "LIMITS", "PATIENCE_S", "Pace", "World"]

COVERS = 4
PATIENCE_S = 20.0
PERIOD_S = 1.0
# Small where the default takes longer to reach than a drill lasts; what they bound is the same.
LIMITS = "first_bytes_s=2, slow_grace_s=2, handshakes_per_s=10, handshake_burst=150"
_CADENCE = Cadence(round_period_ms=1000, fold_deadline_ms=2000, round_deadline_ms=8000)
_LIFETIME_S = 600
_SAMPLE_S = 0.1
_MIB = 1 << 20


@dataclass
class Pace:
    """What was measured over some seconds.

    Attributes:
        seconds: How long.
        rounds: Rounds that became final.
        participants: Fewest of one round.
        before_mib: Largest resident memory of a node when it began.
        most_mib: Most any node grew by while it lasted, sampled ten times a second.
    """

    seconds: float
    rounds: float
    participants: int
    before_mib: float
    most_mib: float

    @property
    def per_s(self) -> float:
        """Rounds a second."""
        return self.rounds / self.seconds


@dataclass
class World:
    """Everything there is; made by ``async with World(folder, attested=…)``.

    Attributes:
        folder: Everything is in here.
        attested: Whether committee and aggregators are gated by (emulated) quotes.
    """

    folder: Path
    attested: bool = True
    emulator: Emulator = field(init=False)
    network: LiveNetwork = field(init=False)
    boot_id: bytes = b"\x07" * 16

    def __post_init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.emulator = Emulator(now=int(time.time()))
        self.collateral = self.folder / "collateral.json"
        self.collateral.write_text(self.emulator.bundle().to_json())
        gates = (Gate.COMMITTEE, Gate.AGGREGATOR)
        terms = make_terms(
            AttestationMode.EMULATED,
            root_der=self.emulator.root_der,
            policies={gate: Policy().require_mrtd(image(gate.value)) for gate in gates},
            lifetime_s=_LIFETIME_S,
        )
        verbs = {"server": "committee", "aggregator": "aggregator", "publish": "client"}
        self.network = LiveNetwork(
            self.folder,
            cadence=_CADENCE,
            attestation=terms if self.attested else ATTESTATION_OFF,
            platform={verb: self.platform(runs) for verb, runs in verbs.items()},
        )
        for node in self.network.nodes.values():
            node.environment = {**node.environment, "ZIPNET_LIMITS": LIMITS}
        # The last server has a clock that can be moved.
        clock = self.folder / "s2.faults"
        clock.mkdir()
        self.skew = clock / "skew"
        self.server(2).program = ("tests.chaos.node", str(clock))

    def platform(self, runs: str) -> dict[str, str]:
        """What makes a process attest as an image; nothing in a world without attestation."""
        if not self.attested:
            return {}
        found = {"ZIPNET_TDX_COLLATERAL": str(self.collateral)}
        if runs != "client":
            found |= {
                "ZIPNET_TDX_SOURCE": "emulator",
                "ZIPNET_TDX_EMULATOR": "qgs.sock",
                "ZIPNET_TDX_EMULATED_MRTD": image(runs).hex(),
            }
        return found

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    def _start(self) -> None:
        if self.attested:
            service = self._stack.enter_context(
                QuoteService(self.emulator, self.folder / "qgs.sock")
            )
            thread = threading.Thread(target=service.serve_forever)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(service.shutdown)
        self._stack.callback(self.network.close)
        self.network.start()
        cover = ("publish", "--descriptor", "d.toml", "--cover", "--quiet")
        for index in range(COVERS):
            self.network.spawn(f"cover-{index}", *cover)
        server = self.server(0)
        wait_for(lambda: server.metric("zipnet_client_registry_size") >= COVERS, "the publishers")
        wait_for(lambda: server.metric("zipnet_rounds_finalized_total") >= 3, "rounds")

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)

    # -- nodes -----------------------------------------------------------------------------

    def server(self, index: int) -> Node:
        """A committee server."""
        return self.network.nodes[f"s{index}"]

    @property
    def root(self) -> Node:
        """The aggregator all clients send to."""
        return self.network.nodes["root"]

    async def series(self, node: Node, name: str, *labels: str) -> float:
        """Sum of a node's series of a metric that have all these labels, as ``name="value"``."""
        _, text = await asyncio.to_thread(node.http, "/metrics")
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if re.match(rf"{name}[{{ ]", line) and all(label in line for label in labels)
        )

    async def rejected(self, node: Node, reason: str) -> float:
        """How often a node refused for a reason."""
        return await self.series(node, "zipnet_rejected_total", f'reason="{reason}"')

    async def until(self, holds: object, what: str) -> None:
        """Wait until an awaitable condition, made anew each time, holds."""
        assert callable(holds)
        end = time.monotonic() + PATIENCE_S
        while not await holds():
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE_S:g} s in vain for {what}")
            await asyncio.sleep(0.1)

    # -- links -----------------------------------------------------------------------------

    def identity_of(self, name: str) -> Identity:
        """The identity of a node or of the operator: this attacker stole its secret."""
        from zipnet.settings.secretfiles import read_secret_file

        secret, _ = read_secret_file(self.folder / f"{name}.secret", what=name)
        return Identity.from_secret(secret)

    def key_of(self, node: Node) -> bytes:
        """The key a node's certificate carries."""
        descriptor = self.network.descriptor.descriptor
        if node is self.root:
            return descriptor.aggregators[0].node.identity.ed25519
        return descriptor.servers[int(node.name[1:])].identity.ed25519

    async def connect(self, node: Node, *, quic: bool = False) -> Connection:
        """Open a connection to a node, and say nothing yet."""
        transport = (
            QuicTransport(None, registered={}) if quic else TlsTransport(None, registered={})
        )
        return await transport.connect(
            "127.0.0.1",
            self.network.ports[node.name],
            expected_key=self.key_of(node),
            timeout_s=PATIENCE_S,
        )

    def terms(self, role: Role, identity: Identity | None) -> SessionTerms:
        """What this side says in a handshake; no evidence unless it is added."""
        return SessionTerms(
            instance_id=self.network.descriptor.descriptor.instance,
            group_id=self.network.descriptor.group,
            role=role,
            identity=identity,
            boot_id=self.boot_id,
            attestor=self.attestor(),
        )

    def attestor(self, source: QuoteSource | None = None) -> PlatformAttestor | None:
        """Judge nodes as everybody does, and show what ``source`` quotes, where that is due."""
        if not self.attested:
            return None
        copy = self.folder / "attacker.json"
        copy.write_text(self.emulator.bundle().to_json())
        return PlatformAttestor(
            self.network.descriptor.descriptor.attestation,
            PlatformConfig(collateral=copy),
            boot_id=self.boot_id,
            source=source,
        )

    @contextlib.asynccontextmanager
    async def session(
        self, node: Node, role: Role = Role.CLIENT, identity: Identity | None = None
    ) -> AsyncIterator[Session]:
        """A session of a client nobody knows, or of a reader."""
        if role is Role.CLIENT and identity is None:
            identity = fresh_identity()
        connection = await self.connect(node)
        opened = await initiate(connection, self.terms(role, identity), deadline_s=PATIENCE_S)
        serving = asyncio.create_task(opened.serve(_silent))
        try:
            yield opened
        finally:
            await opened.close()
            await serving

    # -- measuring -------------------------------------------------------------------------

    def memory(self) -> dict[str, float]:
        """Resident memory of each node, MiB."""
        found = {}
        for name, node in self.network.nodes.items():
            pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
            found[name] = pages * 4096 / _MIB
        return found

    def final_rounds(self) -> list[int]:
        """Participants of each round that became final, as the first server says."""
        rounds = self.server(0).events("round_finalized")
        return [int(str(event["participants"])) for event in rounds]

    @contextlib.asynccontextmanager
    async def measured(self, window_s: float) -> AsyncIterator[list[Pace]]:
        """Measure while the block runs, and for ``window_s`` at least; the list gets the result."""
        result: list[Pace] = []
        before, began = self.memory(), time.monotonic()
        done = len(self.final_rounds())
        most = dict(before)

        async def sample() -> None:
            while True:
                for name, value in self.memory().items():
                    most[name] = max(most[name], value)
                await asyncio.sleep(_SAMPLE_S)

        sampling = asyncio.create_task(sample())
        try:
            yield result
            await asyncio.sleep(max(0.0, window_s - (time.monotonic() - began)))
        finally:
            sampling.cancel()
            await asyncio.wait({sampling})
        made = self.final_rounds()[done:]
        result.append(
            Pace(
                seconds=time.monotonic() - began,
                rounds=len(made),
                participants=min(made, default=0),
                before_mib=max(before.values()),
                most_mib=max(most[name] - before[name] for name in before),
            )
        )


async def _silent(_frame: Frame) -> Frame | None:
    return None


def fresh_identity() -> Identity:
    """An identity nobody knows."""
    import os

    return Identity.from_secret(Secret(bytearray(os.urandom(32))))
