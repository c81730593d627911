"""What a cluster run is made of: a scenario of the model, as far as real processes can be it.

Faults given on the command line are written ``KIND:WHO:AT:FOR``: ``crash:leader:3:2`` kills
whoever leads after three seconds and starts it again two seconds later. WHO is ``leader``, a
server's number, or an aggregator's name (``root``, ``leaf-0``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final, Literal, get_args

from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from sim.model.scenario import Scenario

__all__ = [
    "LEADER",
    "ClusterFault",
    "ClusterPlan",
    "FaultKind",
    "adjusted",
    "parse_fault",
    "plan_of",
]

LEADER: Final = "leader"
FaultKind = Literal["crash", "stop", "partition", "slow", "skew", "rotate"]
_LEAST_CLIENTS: Final = 2
_MOST_CLIENTS: Final = 256
_MOST_AGGREGATORS: Final = 32


@dataclass(frozen=True, slots=True)
class ClusterFault:
    """Something that goes wrong: when, for whom, for how many seconds."""

    at_s: float
    kind: FaultKind
    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A run.

    Attributes:
        scenario: Committee, parameters, pace, clients and what they say.
        aggregators: How many, the root among them.
        transport: ``quic`` or ``tls``, of clients.
        tdx: ``off`` or ``emulated``.
        readers: Reading processes.
        gateway: Whether a gateway runs as well.
        seed: Which clients talk, and when.
        faults: The timeline.
    """

    scenario: Scenario
    aggregators: int = 1
    transport: Literal["quic", "tls"] = "quic"
    tdx: Literal["off", "emulated"] = "off"
    readers: int = 1
    gateway: bool = False
    seed: int = 1
    faults: tuple[ClusterFault, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what real processes cannot be."""
        scenario = self.scenario
        if self.transport not in ("quic", "tls") or self.tdx not in ("off", "emulated"):
            raise ConfigError(
                "a cluster has no such transport or tdx mode",
                hint="--transport quic or tls, --tdx off or emulated",
            )
        refused = {
            "cost-only vectors": scenario.vectors != "real",
            "talkers that come and go": scenario.load.talkers + self.moving > scenario.clients,
            "round with so few clients": scenario.clients < scenario.params.min_participants,
            f"over {_MOST_CLIENTS} clients": self.everybody > _MOST_CLIENTS,
            f"over {_MOST_AGGREGATORS} aggregators": self.aggregators > _MOST_AGGREGATORS,
            "no aggregator": self.aggregators < 1,
            "no reader": self.readers < 1,
        }
        wrong = [name for name, holds in refused.items() if holds]
        if wrong:
            raise ConfigError(
                f"a cluster of real processes has no {', '.join(wrong)}",
                hint="run it in virtual time: zipnet-sim model"
                if scenario.clients >= _LEAST_CLIENTS
                else f"give {_LEAST_CLIENTS} clients or more",
            )

    @property
    def aggregator_names(self) -> tuple[str, ...]:
        """The root, then the leaves below it."""
        return ("root", *(f"leaf-{index}" for index in range(self.aggregators - 1)))

    @property
    def server_names(self) -> tuple[str, ...]:
        """The servers by index."""
        return tuple(f"server-{index}" for index in range(self.scenario.servers))

    @property
    def client_names(self) -> tuple[str, ...]:
        """The clients; the first ones talk, the last ones come and go."""
        return tuple(f"client-{index}" for index in range(self.scenario.clients))

    @property
    def moving(self) -> int:
        """How many clients come and go."""
        return int(self.scenario.clients * self.scenario.churn.share)

    @property
    def everybody(self) -> int:
        """How many publishers there are in all."""
        return len(self.client_names) + len(self.jammer_names)

    @property
    def jammer_names(self) -> tuple[str, ...]:
        """Further clients, which write noise."""
        return tuple(f"jammer-{index}" for index in range(self.scenario.load.jammers))


def plan_of(scenario: Scenario, **options: object) -> ClusterPlan:
    """Make a plan of a scenario; faults of the scenario come before those of ``options``."""
    own = tuple(
        ClusterFault(f.at_s, f.kind, LEADER if f.server < 0 else f"server-{f.server}", f.for_s)
        for f in scenario.faults
    )
    given = options.pop("faults", ())
    assert isinstance(given, tuple)
    options.setdefault("aggregators", 1 + scenario.tree.leaves)
    plan = ClusterPlan(scenario, faults=(*own, *given), **options)  # type: ignore[arg-type]
    unknown = [
        fault.node
        for fault in plan.faults
        if fault.node not in (LEADER, *plan.server_names, *plan.aggregator_names)
    ]
    if unknown:
        raise ConfigError(
            f"a fault strikes {', '.join(unknown)}, which this cluster does not have",
            hint=f"it has {', '.join((*plan.server_names, *plan.aggregator_names))}",
        )
    return plan


def adjusted(
    scenario: Scenario, *, servers: int | None, clients: int | None, rounds: int | None
) -> Scenario:
    """Return a scenario with what the command line says otherwise.

    Where nothing goes wrong and everybody stays, rounds wait for all clients, so that each record
    shows the whole crowd.
    """
    count = scenario.clients if clients is None else clients
    staying = count - int(count * scenario.churn.share)
    talkers = scenario.load.talkers if clients is None else staying
    params = scenario.params
    changing = scenario.faults or scenario.churn.share
    waits_for = min(max(_LEAST_CLIENTS, count), _MOST_CLIENTS)  # no plan has more
    least = params.min_participants if changing else waits_for
    return replace(
        scenario,
        servers=scenario.servers if servers is None else servers,
        clients=count,
        rounds=scenario.rounds if rounds is None else rounds,
        load=replace(scenario.load, talkers=talkers),
        params=replace(params, min_participants=least),
    )


def parse_fault(text: str) -> ClusterFault:
    """Read ``KIND:WHO:AT:FOR``.

    Raises:
        ConfigError: When it has another shape.
    """
    kinds = get_args(FaultKind)
    hint = f"such as crash:{LEADER}:3:2; kinds are {', '.join(kinds)}"
    try:
        kind, who, at_s, for_s = text.split(":")
        begins, lasts = float(at_s), float(for_s)
    except ValueError:
        raise ConfigError("a fault is KIND:WHO:AT:FOR", hint=hint) from None
    if kind not in kinds or not 0 <= begins < inf or not 0 < lasts < inf:
        raise ConfigError("a fault is KIND:WHO:AT:FOR", hint=hint)
    node = f"server-{who}" if who.isdigit() else who
    return ClusterFault(begins, kind, node, lasts)  # type: ignore[arg-type]
