"""How a client reaches the nodes of a descriptor: dial, prove, take turns, wait.

Rules:

1. Every node is one the descriptor registers; its certificate key is checked by the transport and
   its identity by the handshake before anything else is said.
2. One node's refusal is never the last word: the next one is asked. Only when every node of a
   list has refused for a reason that waiting does not mend is the error handed to the user.
3. Waits between attempts are bounded and drawn, so that clients do not come back in step.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from zipnet.admission import is_lasting_refusal
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    ZipnetError,
)
from zipnet.transport.dial import Backoff
from zipnet.transport.egress import allow_egress
from zipnet.transport.session import Role, Session, SessionTerms, initiate
from zipnet.wire.frames import Frame, SessionKind
from zipnet.wire.handshake import Refusal, decode_handshake, refusal_to_error
from zipnet.wire.limits import DEFAULT_LIMITS, Limits
from zipnet.wire.messages import Kind, PresentCapability, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from zipnet.ports import Attestor, Transport
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor
    from zipnet.protocol.identity import Identity

__all__ = [
    "LINK_ERRORS",
    "Dialer",
    "Trouble",
    "Turns",
    "client_transport",
    "refuse_requests",
    "serving",
    "silence_s",
]

Trouble: TypeAlias = Callable[[ZipnetError], None]
"""Is told what went wrong on the way; the work goes on."""

LINK_ERRORS = (
    TransportError,
    AdmissionError,
    RemoteProtocolError,
    VerificationError,
    ConfigError,
)
"""What one node can do wrong; the next node is asked then."""

_DRAWN = secrets.SystemRandom()
_SILENCE_S = 30.0
_SILENT_ROUNDS = 10
_FIRST = 1


def silence_s(descriptor: TrustedDescriptor) -> float:
    """Return how long a node may push nothing before another one is asked, in seconds."""
    cadence = descriptor.descriptor.cadence
    per_round_s = (cadence.round_period_ms + cadence.round_deadline_ms) / 1000
    return max(_SILENCE_S, _SILENT_ROUNDS * per_round_s)


def client_transport(
    transport: Literal["quic", "tls"] | Transport,
    descriptor: TrustedDescriptor,
    proxy: str | None = None,
) -> Transport:
    """Return a transport for a client, which shows no certificate and knows every node's.

    Args:
        transport: Name of an engine, or an adapter, which is returned as it is.
        descriptor: The instance.
        proxy: ``socks5://host:port`` to go through; only ``tls`` can.

    Raises:
        ConfigError: When there is no transport of that name, or it cannot use the proxy.
    """
    if proxy is not None and transport != "tls":
        raise ConfigError(
            "only transport tls goes through a SOCKS5 proxy", hint="use transport tls"
        )
    if not isinstance(transport, str):
        return transport
    registered = _certificates(descriptor)
    if transport == "quic":
        from zipnet.transport.quic import QuicTransport  # noqa: PLC0415 - keeps the import light

        return QuicTransport(None, registered=registered)
    if transport == "tls":
        from zipnet.transport.tls import TlsTransport  # noqa: PLC0415 - keeps the import light

        if proxy is None:
            return TlsTransport(None, registered=registered)
        from zipnet.transport.socks import SocksDialer  # noqa: PLC0415 - keeps the import light

        return TlsTransport(None, registered=registered, dial=SocksDialer(proxy))
    raise ConfigError(f"there is no transport named {transport!r}", hint="use quic or tls")


def _nodes(descriptor: TrustedDescriptor) -> list[NodeEntry]:
    return [*descriptor.descriptor.servers, *(a.node for a in descriptor.descriptor.aggregators)]


def _certificates(descriptor: TrustedDescriptor) -> dict[bytes, bytes]:
    return {node.identity.ed25519: node.certificate for node in _nodes(descriptor)}


async def refuse_requests(frame: Frame) -> Frame | None:
    """Answer whatever a node asks of a client: nothing.

    Raises:
        RemoteProtocolError: Always.
    """
    raise RemoteProtocolError(f"frame kind {frame.kind} has no place on a client's link")


@contextlib.asynccontextmanager
async def serving(
    session: Session, handler: Callable[[Frame], Awaitable[Frame | None]] = refuse_requests
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve a session while the block runs; yields the task that ends with the link."""
    task = asyncio.create_task(session.serve(handler))
    try:
        yield task
    finally:
        await session.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens sessions to a descriptor's nodes as one client.

    Attributes:
        descriptor: The instance.
        transport: Engine to dial with.
        identity: The client; None for an anonymous reader.
        boot_id: 16 bytes drawn once per process or publisher.
        servers_at: Where to dial each committee server instead of where the descriptor says, by
            server index; None dials as the descriptor says. Who answers is checked all the same.
        limits: Bounds of every session.
        attestor: Judges nodes and shows this client's evidence; None where the group asks for none.
        capability: Token shown to every node right after the handshake; None shows nothing.
    """

    descriptor: TrustedDescriptor
    transport: Transport
    identity: Identity | None
    boot_id: bytes
    servers_at: Sequence[tuple[str, int]] | None = None
    limits: Limits = DEFAULT_LIMITS
    attestor: Attestor | None = None
    capability: bytes | None = field(default=None, repr=False)

    async def open(self, node: NodeEntry, *, expected_role: Role) -> Session:
        """Connect to a node and prove both sides; the caller serves and closes the session.

        Raises:
            ZipnetError: One of :data:`LINK_ERRORS`.
        """
        terms = SessionTerms(
            instance_id=self.descriptor.descriptor.instance,
            group_id=self.descriptor.group,
            role=Role.READER if self.identity is None else Role.CLIENT,
            identity=self.identity,
            boot_id=self.boot_id,
            expected_peer=node.peer_id,
            expected_role=expected_role,
            limits=self.limits,
            attestor=self.attestor,
        )
        deadline_s = self.limits.handshake_deadline_s
        host, port = self._address(node)
        connection = await self.transport.connect(
            host, port, expected_key=node.identity.ed25519, timeout_s=deadline_s
        )
        session = await initiate(connection, terms, deadline_s=deadline_s)
        if self.capability is not None:
            await _show(session, self.capability, deadline_s)
        return session

    def _address(self, node: NodeEntry) -> tuple[str, int]:
        index = self.descriptor.server_index(node.peer_id)
        if self.servers_at is None or index is None:
            return node.host, node.port
        return self.servers_at[index]

    def under(self, new: TrustedDescriptor) -> Dialer:
        """Return a dialer to the nodes of a later version of the descriptor.

        A server that was dialled elsewhere than the descriptor said still is, as long as the
        descriptor says the same of it.
        """
        register = getattr(self.transport, "register", None)
        if register is not None:
            register(_certificates(new), _certificates(new.earlier[-1]) if new.earlier else {})
        allow_egress((node.host, node.port) for node in _nodes(new))
        servers_at = self.servers_at
        if servers_at is not None:
            nodes = zip(self.descriptor.descriptor.servers, new.descriptor.servers, strict=True)
            servers_at = [
                at
                if (was.host, was.port, was.peer_id) == (now.host, now.port, now.peer_id)
                else (now.host, now.port)
                for at, (was, now) in zip(servers_at, nodes, strict=True)
            ]
        return replace(self, descriptor=new, servers_at=servers_at)

    def anonymous(self) -> Dialer:
        """Return a dialer that says nothing about who asks."""
        return replace(self, identity=None, boot_id=secrets.token_bytes(16), capability=None)


async def _show(session: Session, token: bytes, deadline_s: float) -> None:
    """Show a capability before anything is served, and wait for the node's word on it.

    Raises:
        ZipnetError: One of :data:`LINK_ERRORS`; the session is closed then.
    """
    request = Frame(Kind.PRESENT_CAPABILITY, _FIRST, encode(PresentCapability(token=token)))
    try:
        async with asyncio.timeout(deadline_s):
            await session.send(request)
            answer = await session.receive()
        if answer.kind == SessionKind.REFUSAL:
            raise refusal_to_error(decode_handshake(answer.payload, Refusal))
        if (answer.kind, answer.request_id) != (request.kind, _FIRST):
            raise RemoteProtocolError("a node did not answer to a capability")
    except TimeoutError as error:
        await session.close()
        raise TransportError("a node did not answer to a capability in time") from error
    except ZipnetError:
        await session.close()
        raise


class Turns:
    """Whose turn it is in a list of nodes: drawn order, then round and round, waiting in between.

    Args:
        nodes: The nodes, in groups of decreasing preference; each group is shuffled.
        backoff: Waits between failures.
        on_trouble: Told about every failure.
    """

    def __init__(
        self,
        *nodes: Sequence[NodeEntry],
        backoff: Backoff | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        self._nodes = [n for group in nodes for n in _DRAWN.sample(list(group), len(group))]
        self._backoff = backoff or Backoff()
        self._on_trouble = on_trouble or (lambda _error: None)
        self._at = 0
        self._failures = 0
        self._refusals: dict[str, ZipnetError] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def passes(self) -> int:
        """How often the whole list has failed since the last success."""
        return self._failures // len(self._nodes)

    def current(self) -> NodeEntry:
        """Return the node to try now."""
        return self._nodes[self._at % len(self._nodes)]

    def advance(self) -> None:
        """Let the next node have its turn without waiting."""
        self._at += 1

    def succeeded(self) -> None:
        """Note that the current node did its duty."""
        self._failures = 0
        self._refusals.clear()

    async def failed(self, error: ZipnetError) -> None:
        """Note a failure of the current node, move on, and wait as long as is due.

        Raises:
            ConfigError: The error itself, when every node has refused with one in a row.
            AdmissionError: Likewise, when every node's evidence or this client's was refused.
        """
        self._on_trouble(error)
        node = self.current()
        if isinstance(error, ConfigError) or _is_lasting(error):
            self._refusals[node.name] = error
            if len(self._refusals) == len(self._nodes):
                raise error
        else:
            self._refusals.pop(node.name, None)
        self._failures += 1
        self._at += 1
        # The first pass over the list is quick; after it every failure makes the wait longer.
        delay_s = self._backoff.delay_s(max(self.passes, 1), _DRAWN.random())
        if isinstance(error, AdmissionError) and error.retry_after is not None:
            delay_s = max(delay_s, min(error.retry_after, self._backoff.most_s))
        await asyncio.sleep(delay_s)


def _is_lasting(error: ZipnetError) -> bool:
    return isinstance(error, AdmissionError) and is_lasting_refusal(error.code)
