"""Settings as the rest of the program sees them: frozen, complete, checked with the descriptor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.access.terms import NO_TERMS, AccessTerms
from zipnet.settings.secretfiles import NO_LATER_SECRET, LaterSecret

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.attestation import PlatformConfig
    from zipnet.protocol.descriptor import AggregatorEntry, NodeEntry, TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import PeerId, ServerIndex
    from zipnet.protocol.params import Cadence
    from zipnet.protocol.secret import Secret
    from zipnet.settings.values import Endpoint

__all__ = [
    "AggregatorSettings",
    "ClientSettings",
    "CommonSettings",
    "Effective",
    "GatewaySettings",
    "LogLevel",
    "MicroSettings",
    "NodeSettings",
    "Profile",
    "ServerSettings",
    "TransportName",
]

TransportName = Literal["quic", "tls"]
Profile = Literal["development", "micro", "production"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it took effect, for ``zipnet config show``.

    Attributes:
        name: The setting, upper case.
        value: Its value in words; a secret is ``set (file, 0600)`` or ``not set``.
        origin: Where it came from: a flag, the environment, a file, the descriptor, a default.
    """

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What every role has.

    Attributes:
        instance: Name of the instance; equal to the descriptor's.
        universe: Universe of the instance; equal to the descriptor's.
        descriptor: The descriptor, its signature and validity checked.
        descriptor_file: Where it was read from.
        operator: Operator the caller pinned, if any.
        transport: Transport for dialling.
        server_endpoints: Where to dial each committee server, by server index.
        profile: Posture of the process.
        log_level: Least level that is logged.
        platform: How this machine attests; None where the descriptor asks for nothing.
        config_version: Number of the signed settings file; None where none was signed.
        allowed: What was weakened by name (``allow_<what>``), in order.
        config: The settings file, None where none was given.
        warnings: What was let pass but should be changed, one line each, for the log.
        effective: Every setting with its origin; secrets are not shown.
    """

    instance: str
    universe: str
    descriptor: TrustedDescriptor
    descriptor_file: Path
    operator: PeerId | None
    transport: TransportName
    server_endpoints: tuple[Endpoint, ...]
    profile: Profile
    log_level: LogLevel
    platform: PlatformConfig | None
    config_version: int | None = None
    allowed: tuple[str, ...] = ()
    config: Path | None = None
    warnings: tuple[str, ...]
    effective: tuple[Effective, ...] = field(repr=False)

    @property
    def is_production(self) -> bool:
        """Whether the production profile is on."""
        return self.profile == "production"

    @property
    def posture(self) -> str:
        """What ``/version``, metrics and the log say: ``production`` only where it all is."""
        if not self.is_production:
            return self.profile
        attested = self.descriptor.descriptor.attestation.is_production
        return "production" if attested and not self.allowed else "non-production"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(CommonSettings):
    """What servers and aggregators have.

    Attributes:
        secret: The node's own secret.
        identity: The identity derived from it; registered in the descriptor for this role.
        node: The node's entry in the descriptor.
        listen: Address of the transport port, UDP and TCP.
        metrics: Address of the HTTP port.
        cadence: Pace of rounds: the descriptor's, with this node's overrides.
        access: For which roles this node wants to see a capability, and signed by whom.
        admin: Folder of the admin socket, not created here; None for no socket.
        admin_uids: Users, besides the node's own, that may speak to the admin socket.
        trace_file: File that traces go to; None for none.
        trace_collector: Collector on loopback that traces go to; None for none.
        bounds: What callers may have.
    """

    secret: Secret
    identity: Identity
    node: NodeEntry
    listen: Endpoint
    metrics: Endpoint
    cadence: Cadence
    access: AccessTerms = NO_TERMS
    admin: Path | None = None
    admin_uids: tuple[int, ...] = ()
    trace_file: Path | None = None
    trace_collector: Endpoint | None = None
    bounds: WallBounds = DEFAULT_BOUNDS


DEFAULT_SNAPSHOT_EVERY: Final = 1000
"""Commands of the consensus log after which a snapshot takes their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(NodeSettings):
    """Settings of a committee server.

    Attributes:
        committee_secret: The committee's secret; its fingerprint is the descriptor's.
        next_committee_secret: Where the one is, or will be, that takes its place.
        index: The server's index in the descriptor.
        state: Folder of the durable state, not created here; None keeps everything in memory.
        min_participants: Fewest clients this server unblinds a round for.
        snapshot_every: Commands after which the consensus log is replaced by a snapshot.
        etcd: Client address, on loopback, of an etcd that carries the consensus log; None for the
            embedded engine.
    """

    committee_secret: Secret
    index: ServerIndex
    state: Path | None
    min_participants: int
    next_committee_secret: LaterSecret = NO_LATER_SECRET
    snapshot_every: int = DEFAULT_SNAPSHOT_EVERY
    etcd: Endpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSettings(NodeSettings):
    """Settings of an aggregator.

    Attributes:
        entry: The aggregator's entry in the descriptor, with its parent.
        capability: What it shows to servers and to its parent; None shows nothing.
        capability_file: Where that was read, and is read again when it changes.
    """

    entry: AggregatorEntry
    capability: bytes | None = field(default=None, repr=False)
    capability_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(CommonSettings):
    """Settings of a publisher or a reader.

    Attributes:
        secret: Secret of a lasting identity; None draws a fresh identity for each run.
        state: Folder a publisher keeps its state in, None keeps none.
        cover_every: A publisher takes part in every N-th round; 1 is every round.
        capability: What it shows after each handshake; None shows nothing.
    """

    secret: Secret | None
    state: Path | None
    cover_every: int
    capability: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(CommonSettings):
    """Settings of a gateway.

    Attributes:
        gateway: Address of its HTTP port.
        read_only: Whether it serves no publishing.
        proxy: Proxy towards the nodes, None dials directly.
        public: What was given as ``allow_public_gateway``.
        publish_for_others: What was given as ``allow_publishing_for_others``.
        capability: What it shows after each handshake; None shows nothing.
        capability_file: Where that was read.
        bounds: What callers may have.
    """

    gateway: Endpoint
    read_only: bool
    proxy: str | None
    public: str | None
    publish_for_others: str | None
    capability: bytes | None = field(default=None, repr=False)
    capability_file: Path | None = None
    bounds: WallBounds = DEFAULT_BOUNDS


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroSettings:
    """Settings of a micro network: one process that holds every key.

    Attributes:
        descriptor_file: Where its descriptor is written.
        gateway: Address of the gateway's HTTP port.
        servers: Committee servers.
        covers: Publishers that send cover.
        log_level: Least level that is logged.
        profile: Always ``micro``.
    """

    descriptor_file: Path
    gateway: Endpoint
    servers: int
    covers: int
    log_level: LogLevel
    profile: Profile = "micro"
