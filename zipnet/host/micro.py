"""The micro profile: a whole network in one process and in memory, for one developer (row M15).

The same code as everywhere: committee servers and an aggregator on loopback, publishers that send
cover, a gateway. It is for building applications against, not for hiding: one process holds every
key. Nothing of it is on a disk but the public descriptor, which goes when the network stops; keep
that in memory too by giving a folder of a RAM disk (row M1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError
from zipnet.gateway import Gateway, GatewayOptions
from zipnet.host.guests import Guest, Host
from zipnet.host.loopback import free_ports
from zipnet.node.aggregator_start import run_aggregator
from zipnet.node.notify import ServiceNotifier
from zipnet.node.server_start import run_server
from zipnet.protocol.descriptor import parse_descriptor, sign_descriptor, trust_descriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import DEFAULT_UNIVERSE, ServerIndex
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.protocol.secret import Secret
from zipnet.sdk.publisher import Publisher
from zipnet.settings.descriptorfile import NodeDraft, compose_descriptor
from zipnet.settings.keyfiles import write_new
from zipnet.settings.publicfile import PublicFile
from zipnet.settings.types import AggregatorSettings, ServerSettings
from zipnet.settings.values import Endpoint
from zipnet.transport.certificate import node_certificate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.settings.assemble import CommonParts

__all__ = ["Micro", "MicroOptions", "run_micro"]

INSTANCE: Final = "micro.local"
_HOST: Final = "127.0.0.1"
_DAYS: Final = 30
_SERVERS: Final = (3, 5, 7)


@dataclass(frozen=True, slots=True)
class MicroOptions:
    """What a micro network is made of.

    Attributes:
        descriptor: File its descriptor is written to; it must not exist.
        servers: Committee servers: 3, 5 or 7.
        covers: Publishers that send cover and nothing else; a round needs one more participant
            than these, which the gateway is.
        gateway: Address of the gateway's HTTP port.
        params: Round parameters; ``min_participants`` follows ``covers``.
        cadence: Pace of rounds.
    """

    descriptor: Path
    servers: int = 3
    covers: int = 3
    gateway: Endpoint = field(default_factory=lambda: Endpoint(_HOST, 8640))
    params: RoundParams = field(default_factory=lambda: RoundParams(num_slots=64, slot_bytes=256))
    cadence: Cadence = field(
        default_factory=lambda: Cadence(
            round_period_ms=500, fold_deadline_ms=2000, round_deadline_ms=8000
        )
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """A node's secret and what others may know of it."""

    secret: Secret
    identity: Identity

    @classmethod
    def draw(cls) -> _Key:
        secret = Secret.random(secrets.token_bytes)
        return cls(secret, Identity.from_secret(secret))

    def public(self, kind: str) -> PublicFile:
        node = kind == "node"
        certificate = node_certificate(self.identity.ed25519_private_key())
        return PublicFile(kind, self.identity.public, certificate.der if node else b"")


class Micro:
    """A micro network's keys and descriptor, made anew for each run.

    Args:
        options: What it is made of.

    Attributes:
        descriptor: Its descriptor, signed and trusted.
        text: The descriptor's file.

    Raises:
        ConfigError: When the options do not make an instance.
    """

    def __init__(self, options: MicroOptions) -> None:
        if options.servers not in _SERVERS:
            raise ConfigError(
                f"a committee of {options.servers} is not possible", hint="give 3, 5 or 7 servers"
            )
        self._options = options
        self._committee = Secret.random(secrets.token_bytes)
        self._servers = [_Key.draw() for _ in range(options.servers)]
        self._aggregator = _Key.draw()
        operator = _Key.draw()
        self.text = sign_descriptor(self._compose(operator), operator.identity)
        operator.secret.wipe()
        self.descriptor: TrustedDescriptor = trust_descriptor(
            parse_descriptor(self.text), now=datetime.now(UTC)
        )

    def _compose(self, operator: _Key) -> bytes:
        options = self._options
        now = datetime.now(UTC).replace(microsecond=0)
        params = options.params
        *servers, aggregator = [Endpoint(_HOST, port) for port in free_ports(options.servers + 1)]
        return compose_descriptor(
            name=INSTANCE,
            universe=DEFAULT_UNIVERSE,
            version=1,
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(days=_DAYS),
            max_absent=0,
            committee_secret=self._committee,
            operator=operator.identity.public,
            params=RoundParams(
                num_slots=params.num_slots,
                slot_bytes=params.slot_bytes,
                min_participants=max(2, options.covers),
                kem_epoch_s=params.kem_epoch_s,
                max_skip_rounds=params.max_skip_rounds,
            ),
            cadence=options.cadence,
            servers=[
                NodeDraft(f"server-{index}", endpoint, key.public("node"))
                for index, (endpoint, key) in enumerate(zip(servers, self._servers, strict=True))
            ],
            aggregators=[NodeDraft("aggregator", aggregator, self._aggregator.public("node"))],
        )

    def wipe(self) -> None:
        """Wipe every secret."""
        for key in (*self._servers, self._aggregator):
            key.secret.wipe()
        self._committee.wipe()

    def server_guests(self) -> list[Guest]:
        """Return the committee servers."""
        return [self._server_guest(index) for index in range(self._options.servers)]

    def _server_guest(self, index: int) -> Guest:
        descriptor = self.descriptor
        key, node = self._servers[index], descriptor.descriptor.servers[index]

        async def run(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
            settings = ServerSettings(
                **self._common(),
                warnings=(),
                effective=(),
                secret=key.secret,
                identity=key.identity,
                node=node,
                listen=Endpoint(node.host, node.port),
                metrics=Endpoint(_HOST, 0),
                cadence=descriptor.descriptor.cadence,
                committee_secret=self._committee,
                index=ServerIndex(index),
                state=None,
                min_participants=descriptor.params.min_participants,
            )
            await run_server(settings, stop, notifier)

        return Guest(node.name, INSTANCE, "server", run)

    def aggregator_guest(self) -> Guest:
        """Return the aggregator."""
        descriptor, key = self.descriptor, self._aggregator
        entry = descriptor.descriptor.aggregators[0]

        async def run(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
            settings = AggregatorSettings(
                **self._common(),
                warnings=(),
                effective=(),
                secret=key.secret,
                identity=key.identity,
                node=entry.node,
                listen=Endpoint(entry.node.host, entry.node.port),
                metrics=Endpoint(_HOST, 0),
                cadence=descriptor.descriptor.cadence,
                entry=entry,
            )
            await run_aggregator(settings, stop, notifier)

        return Guest(entry.node.name, INSTANCE, "aggregator", run)

    def cover_guest(self) -> Guest:
        """Return the publishers that send cover: somebody has to be the crowd."""

        async def run(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
            async with contextlib.AsyncExitStack() as stack:
                covers = [
                    await stack.enter_async_context(
                        Publisher(self.descriptor, on_warning=_say_nothing)
                    )
                    for _ in range(self._options.covers)
                ]
                notifier.ready()
                async with asyncio.TaskGroup() as group:
                    ends = [group.create_task(cover.when.closed()) for cover in covers]
                    await stop.wait()
                    for end in ends:
                        end.cancel()

        return Guest("covers", INSTANCE, "client", run)

    def gateway_guest(self, on_url: Callable[[str], None]) -> Guest:
        """Return the gateway; ``on_url`` is told where it answers, from the gateway's thread."""

        async def run(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
            options = GatewayOptions(listen=self._options.gateway)
            async with Gateway(self.descriptor, options) as gateway:
                on_url(gateway.url)
                notifier.ready()
                await gateway.wait(stop)

        return Guest("gateway", INSTANCE, "client", run)

    def _common(self) -> CommonParts:
        descriptor = self.descriptor
        return {
            "instance": INSTANCE,
            "universe": DEFAULT_UNIVERSE,
            "descriptor": descriptor,
            "descriptor_file": self._options.descriptor,
            "operator": descriptor.descriptor.operator.peer_id,
            "transport": "tls",
            "server_endpoints": tuple(
                Endpoint(node.host, node.port) for node in descriptor.descriptor.servers
            ),
            "profile": "micro",
            "log_level": "info",
            "platform": None,
            "config_version": None,
        }


async def run_micro(
    options: MicroOptions, stop: asyncio.Event, *, on_up: Callable[[str], None]
) -> None:
    """Run a micro network until ``stop`` is set; its descriptor is then gone.

    Args:
        options: What it is made of.
        stop: Ends it.
        on_up: Told the gateway's address once the gateway and every node answer.

    Raises:
        ConfigError: When the options do not make an instance, or a port or file is taken.
    """
    if options.descriptor.exists():
        raise ConfigError(
            f"file {options.descriptor} exists; nothing was written",
            hint="remove it where no network is up that keeps it, or name another: --descriptor",
        )
    _require_free(options.gateway)
    micro = Micro(options)
    write_new(options.descriptor, micro.text.decode(), mode=0o644)
    urls: list[str] = []
    try:
        guests = [
            *micro.server_guests(),
            micro.aggregator_guest(),
            micro.cover_guest(),
            micro.gateway_guest(urls.append),
        ]
        host = Host(guests, notifier=ServiceNotifier(os.environ), as_one=True)
        async with asyncio.TaskGroup() as group:
            ready = group.create_task(_announce(host, urls, on_up))
            await host.run(stop)
            ready.cancel()
    finally:
        options.descriptor.unlink(missing_ok=True)
        micro.wipe()


def _require_free(endpoint: Endpoint) -> None:
    """Refuse a port that is taken before a network is built around it; 0 is any free one."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((endpoint.host, endpoint.port))
        except OSError as error:
            raise ConfigError(
                f"setting GATEWAY: {endpoint} cannot be bound: {error.strerror}",
                hint="write another host:port, or 127.0.0.1:0 for any free port",
            ) from error


async def _announce(host: Host, urls: list[str], on_up: Callable[[str], None]) -> None:
    await host.wait_ready()
    on_up(urls[0])


def _say_nothing(_text: str) -> None:
    """Take a warning about the crowd: here it is made of covers, and the gateway shows it."""
