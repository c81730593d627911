"""What a simulated network looks like, read from TOML.

A scenario names the committee, the aggregation tree, the clients, what they say, the links between
them and the faults that strike. Unknown keys are refused, so a typo never runs as something else.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from typing import Literal

import msgspec

from zipnet.errors import ConfigError
from zipnet.protocol.header import MAX_SERVERS
from zipnet.protocol.params import Cadence, RoundParams

__all__ = [
    "Churn",
    "Fault",
    "Links",
    "Load",
    "NodeLinks",
    "Nominal",
    "Scenario",
    "Tree",
    "parse_scenario",
]

_JITTER_SHARE = 0.25
_FEWEST_SERVERS, _MOST_SERVERS = 3, 7


@dataclass(frozen=True, slots=True)
class NodeLinks:
    """How one kind of node is attached.

    Attributes:
        up_mbit: Upstream bandwidth in Mbit/s, shared by everything it sends.
        down_mbit: Downstream bandwidth in Mbit/s.
        latency_ms: Its share of the one-way delay of every message, in milliseconds.
    """

    up_mbit: float = 1000.0
    down_mbit: float = 1000.0
    latency_ms: float = 0.5


@dataclass(frozen=True, slots=True)
class Links:
    """The network.

    A message from a to b takes the latency shares of both, a uniform draw below ``jitter_ms``, and
    the time its bytes need through a's upstream and b's downstream, which serve in turn.

    Attributes:
        server: Committee servers.
        aggregator: Aggregators.
        client: Clients.
        jitter_ms: Bound of the uniform jitter of one message.
        loss: Probability that a message needs a retransmission, each costing ``retransmit_ms``.
        retransmit_ms: What one lost packet costs, in milliseconds.
        server_regions_ms: Further one-way delay of each server, for committees across a WAN.
    """

    server: NodeLinks = field(default_factory=NodeLinks)
    aggregator: NodeLinks = field(default_factory=NodeLinks)
    client: NodeLinks = field(default_factory=NodeLinks)
    jitter_ms: float = 0.2
    loss: float = 0.0
    retransmit_ms: float = 200.0
    server_regions_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """The aggregation tree: ``leaves`` below one root, or the root alone where ``leaves`` is 0."""

    leaves: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What clients say.

    Attributes:
        talkers: How many clients have messages.
        messages: Messages of each talker.
        message_bytes: Length of a message.
        start_s: When the first are queued, in virtual seconds.
        interval_s: Mean of the exponential pause before each further message of a talker; 0 queues
            all at once.
        jammers: How many further clients write noise over others' slots and reservations.
    """

    talkers: int = 0
    messages: int = 1
    message_bytes: int = 100
    start_s: float = 1.0
    interval_s: float = 0.0
    jammers: int = 0


@dataclass(frozen=True, slots=True)
class Churn:
    """Clients that come and go: each one leaves after ``up_s`` and is back after ``down_s``.

    Both are means of exponential draws. ``share`` of the clients do so; ``rejoin`` of the returns
    are with a new registration, the others go on with the old one.
    """

    share: float = 0.0
    up_s: float = 30.0
    down_s: float = 10.0
    rejoin: float = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at_s: When, in virtual seconds.
        kind: ``crash`` (and restart after ``for_s``), ``partition`` (cut off for ``for_s``) or
            ``slow`` (links at a tenth for ``for_s``).
        server: Which server; -1 is whoever leads at that moment.
        for_s: How long.
    """

    at_s: float
    kind: Literal["crash", "partition", "slow"]
    server: int = -1
    for_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Nominal:
    """The round that a cost-only network is charged for where ``params`` cannot describe it.

    Attributes:
        slots: Slots of a round; 0 takes those of ``params``.
        slot_bytes: Width of a slot.
    """

    slots: int = 0
    slot_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulated network.

    Attributes:
        name: Its name.
        about: One line for people.
        servers: Committee size: 3, 5 or 7, as a descriptor allows; with cost-only vectors up to 16,
            which headers, registrations and the consensus engine can name.
        max_absent: As in the descriptor.
        clients: How many clients register before the clock starts.
        rounds: Records to seal before the run ends.
        limit_s: Virtual seconds after which it ends all the same.
        vectors: ``real`` seals, folds and unblinds whole round vectors; ``cost`` carries a stand-in
            of 80 bytes and charges links and processors for the vector that ``params`` describes.
        params: Round parameters: those of the group where vectors are real.
        nominal: A round larger than the wire allows, for cost-only networks.
        cadence: Round period and deadlines.
        reservations: Most slots a client asks for in a round.
        client_jitter_s: Bound of the drawn delay before an envelope leaves; the SDK's own choice, a
            quarter of the time leaves wait for envelopes, where it is not given.
        tree: The aggregation tree.
        load: What clients say.
        links: The network.
        churn: Clients that come and go.
        faults: What goes wrong.
        assumptions: What a reader of the figures must know.
        published: Figures of others beside which ours are printed: label to value.
    """

    name: str
    about: str = ""
    servers: int = 3
    max_absent: int = 0
    clients: int = 8
    rounds: int = 5
    limit_s: float = 600.0
    vectors: Literal["real", "cost"] = "real"
    params: RoundParams = field(default_factory=RoundParams)
    nominal: Nominal = field(default_factory=Nominal)
    cadence: Cadence = field(default_factory=Cadence)
    reservations: int = 4
    client_jitter_s: float | None = None
    cover: bool = True
    tree: Tree = field(default_factory=Tree)
    load: Load = field(default_factory=Load)
    links: Links = field(default_factory=Links)
    churn: Churn = field(default_factory=Churn)
    faults: tuple[Fault, ...] = ()
    assumptions: tuple[str, ...] = ()
    published: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what the types do not say.

        Raises:
            ConfigError: When a value makes no network.
        """
        largest = MAX_SERVERS if self.vectors == "cost" else _MOST_SERVERS
        sound = self.servers % 2 == 1 or self.vectors == "cost"
        if (
            not _FEWEST_SERVERS <= self.servers <= largest
            or not sound
            or not 0 <= self.max_absent <= (self.servers - 1) // 2
        ):
            raise ConfigError(f"scenario {self.name}: no committee of {self.servers} like that")
        if self.clients < 1 or self.rounds < 1 or self.load.talkers > self.clients:
            raise ConfigError(f"scenario {self.name}: clients, rounds or talkers make no sense")
        if self.nominal.slots and self.vectors != "cost":
            raise ConfigError(f"scenario {self.name}: a nominal round needs cost-only vectors")
        if self.vectors == "cost" and (self.load.talkers or self.churn.share or self.load.jammers):
            raise ConfigError(
                f"scenario {self.name}: cost-only clients say nothing and do not come and go",
                hint='use vectors = "real"',
            )

    @property
    def wire_body_bytes(self) -> int:
        """Length of the round vector that links and processors are charged for."""
        if not self.nominal.slots:
            return self.params.body_bytes
        per_slot = self.params.reservation_bytes // self.params.num_slots
        return self.nominal.slots * (self.nominal.slot_bytes + per_slot)

    @property
    def jitter_s(self) -> float:
        """Bound of the drawn delay before an envelope leaves, in seconds."""
        if self.client_jitter_s is not None:
            return self.client_jitter_s
        levels = 2 if self.tree.leaves else 1
        return _JITTER_SHARE * self.cadence.fold_deadline_ms / 1000 / levels

    @property
    def slots(self) -> int:
        """Slots of the round that is charged for."""
        return self.nominal.slots or self.params.num_slots

    @property
    def slot_bytes(self) -> int:
        """Width of a slot of that round."""
        return self.nominal.slot_bytes if self.nominal.slots else self.params.slot_bytes


def parse_scenario(text: str, *, name: str) -> Scenario:
    """Read a scenario from TOML.

    Raises:
        ConfigError: When it does not parse, or a value is missing, unknown or wrong.
    """
    try:
        raw = tomllib.loads(text)
        _refuse_unknown(raw)
        return msgspec.convert({"name": name, **raw}, Scenario, strict=False)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"scenario {name} does not parse: {error}") from error


_TABLES: dict[str, type] = {
    "params": RoundParams,
    "nominal": Nominal,
    "cadence": Cadence,
    "tree": Tree,
    "load": Load,
    "links": Links,
    "churn": Churn,
}


def _refuse_unknown(raw: dict[str, object]) -> None:
    # Dataclasses do not refuse unknown keys by themselves.
    _known(raw, Scenario, "scenario")
    for key, kind in _TABLES.items():
        table = raw.get(key)
        if isinstance(table, dict):
            _known(table, kind, key)
    faults = raw.get("faults", [])
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict):
            _known(fault, Fault, "faults")


def _known(table: dict[str, object], kind: type, where: str) -> None:
    unknown = sorted(set(table) - {item.name for item in fields(kind)})
    if unknown:
        raise msgspec.ValidationError(f"{where} has no {', '.join(unknown)}")
