"""Who gets in, who does not, and that one identity has one session."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_server import new_metrics, quic_of, terms_of, tls_of
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    DuplicateIdentityError,
    TransportError,
    ZipnetError,
)
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.ids import InstanceId
from zipnet.protocol.succession import succeed
from zipnet.settings.descriptorfile import NodeDraft, compose_successor
from zipnet.transport.session import Role, initiate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from zipnet.protocol.identity import Identity
    from zipnet.transport.session import HelloFacts, Session, SessionTerms
    from zipnet.wire.frames import Frame

PATIENCE_S = 20.0
COMMITTEE = HarnessCommittee(aggregators={"root": None, "leaf": "root"})
SERVER = COMMITTEE.identities[0]
ALL = (Role.CLIENT, Role.READER, Role.AGGREGATOR)


async def _nothing(_frame: Frame) -> Frame | None:
    return None


async def until(holds: Callable[[], bool]) -> None:
    """Return once something the listener tells nobody about holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


class Door:
    """A listening node and the parties that came."""

    def __init__(self, group: asyncio.TaskGroup, node: NodeListener, port: int) -> None:
        self.group = group
        self.node = node
        self.port = port
        self.sessions: list[Session] = []

    async def enter(
        self,
        role: Role,
        identity: Identity | None,
        *,
        terms: SessionTerms | None = None,
        quic: bool = False,
        answering: bool = True,
    ) -> Session:
        terms = terms or terms_of(COMMITTEE, identity, role)
        if quic:
            from zipnet.transport.quic import QuicTransport

            transport = QuicTransport(None, registered={})
            connection = await transport.connect(
                "127.0.0.1", self.port, expected_key=SERVER.public.ed25519, timeout_s=PATIENCE_S
            )
        else:
            shown = identity if role in (Role.AGGREGATOR, Role.SERVER) else None
            registered = shown and COMMITTEE.descriptor.aggregator(shown.peer_id)
            connection = await tls_of(COMMITTEE, shown if registered else None).connect(
                "127.0.0.1", self.port, expected_key=SERVER.public.ed25519, timeout_s=PATIENCE_S
            )
        session = await initiate(connection, terms, deadline_s=PATIENCE_S)
        self.sessions.append(session)
        if answering:
            self.group.create_task(session.serve(_nothing))
        return session

    async def refusal(self, role: Role, identity: Identity | None, **how: object) -> str:
        with pytest.raises(ZipnetError) as refused:
            await self.enter(role, identity, **how)  # type: ignore[arg-type]
        error = refused.value
        return error.code if isinstance(error, AdmissionError) else error.reason

    async def until_gone(self, session: Session) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await session.alive(1.0):  # noqa: ASYNC110 - asking is the point
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(
    *,
    roles: Iterable[Role] = ALL,
    limits: ListenLimits | None = None,
    refuse: ZipnetError | None = None,
) -> AsyncIterator[Door]:
    async def serve(session: Session) -> None:
        await session.serve(_nothing)

    def admit(_facts: HelloFacts) -> ZipnetError | None:
        return refuse

    node = NodeListener(
        terms=terms_of(COMMITTEE, SERVER, Role.SERVER),
        descriptor=COMMITTEE.descriptor,
        handlers=dict.fromkeys(roles, serve),
        metrics=new_metrics(),
        admit=admit,
        limits=limits or ListenLimits(ping_timeout_s=0.3),
    )
    transports = [quic_of(COMMITTEE, SERVER), tls_of(COMMITTEE, SERVER)]
    port = await node.start("127.0.0.1", 0, transports)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        found = Door(group, node, port)
        try:
            yield found
        finally:
            for session in found.sessions:
                await session.close()
            await node.close()


async def test_a_node_put_out_while_it_shakes_hands_is_not_let_in() -> None:
    root = NodeDraft.of(COMMITTEE.descriptor.descriptor.aggregators[0].node)
    text = compose_successor(COMMITTEE.descriptor.descriptor, aggregators=[root])
    without_leaf = succeed(COMMITTEE.descriptor, sign_descriptor(text, COMMITTEE.operator))
    async with door() as at:
        standing = await at.enter(Role.AGGREGATOR, COMMITTEE.aggregators["root"])

        def adopted(_facts: HelloFacts) -> None:
            # After it was found to be registered, and before it is told so.
            asyncio.get_running_loop().call_soon(at.node.use_descriptor, without_leaf)

        at.node._barred = adopted
        with contextlib.suppress(ZipnetError):
            leaf = await at.enter(Role.AGGREGATOR, COMMITTEE.aggregators["leaf"])
            await at.until_gone(leaf)
        await until(lambda: len(at.node.sessions(Role.AGGREGATOR)) == 1)
        assert await standing.alive(5.0)


async def test_both_transports_are_served_on_one_port() -> None:
    async with door() as at:
        over_tls = await at.enter(Role.CLIENT, make_identity("a"))
        over_quic = await at.enter(Role.CLIENT, make_identity("b"), quic=True)
        assert await over_tls.alive(5.0)
        assert await over_quic.alive(5.0)
        assert len(at.node.sessions(Role.CLIENT)) == 2


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = NodeListener(
            terms=terms_of(COMMITTEE, SERVER, Role.SERVER),
            descriptor=COMMITTEE.descriptor,
            handlers={},
            metrics=new_metrics(),
        )
        transports = [quic_of(COMMITTEE, SERVER), tls_of(COMMITTEE, SERVER)]
        with pytest.raises(ConfigError, match=str(port)):
            await node.start("127.0.0.1", port, transports)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))  # the half that was bound was given back


async def test_the_descriptor_decides_who_is_a_node() -> None:
    async with door(roles=Role) as at:
        await at.enter(Role.AGGREGATOR, COMMITTEE.aggregators["leaf"])
        assert await at.refusal(Role.AGGREGATOR, make_identity("x")) == "not_registered"
        assert await at.refusal(Role.AGGREGATOR, make_identity("y")) == "not_registered"
        await at.enter(Role.READER, None)
        assert len(at.node.sessions()) == 2


async def test_a_role_without_handler_and_a_refused_client_stay_outside() -> None:
    async with door(roles=[Role.READER]) as at:
        assert await at.refusal(Role.CLIENT, make_identity("a")) == "not_registered"
    async with door(refuse=AdmissionError("no", code="not_wanted")) as at:
        assert await at.refusal(Role.CLIENT, make_identity("a")) == "not_wanted"
        await at.enter(Role.AGGREGATOR, COMMITTEE.aggregators["root"])


async def test_the_same_process_replaces_its_own_session() -> None:
    async with door() as at:
        terms = terms_of(COMMITTEE, make_identity("a"), Role.CLIENT)
        first = await at.enter(Role.CLIENT, terms.identity, terms=terms)
        second = await at.enter(Role.CLIENT, terms.identity, terms=terms)
        await at.until_gone(first)
        assert await second.alive(5.0)
        assert len(at.node.sessions()) == 1


async def test_another_process_is_refused_while_the_first_answers() -> None:
    async with door() as at:
        first = await at.enter(Role.CLIENT, make_identity("a"))
        assert await at.refusal(Role.CLIENT, make_identity("a")) == "identity_busy"
        await asyncio.gather(*at.node._probes.values())
        assert await at.refusal(Role.CLIENT, make_identity("a")) == DuplicateIdentityError.reason
        assert await first.alive(5.0)


async def test_another_process_gets_in_when_the_first_is_gone() -> None:
    async with door() as at:
        await at.enter(Role.CLIENT, make_identity("a"), answering=False)
        assert await at.refusal(Role.CLIENT, make_identity("a")) == "identity_busy"
        await asyncio.gather(*at.node._probes.values())
        second = await at.enter(Role.CLIENT, make_identity("a"))
        assert await second.alive(5.0)


async def test_without_the_ping_a_dead_session_would_lock_its_owner_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutant of the test above."""

    async def believe(_self: Session, _timeout_s: float) -> bool:
        return True

    from zipnet.transport.rpc import Session as Shipped

    async with door() as at:
        await at.enter(Role.CLIENT, make_identity("a"), answering=False)
        monkeypatch.setattr(Shipped, "alive", believe)
        assert await at.refusal(Role.CLIENT, make_identity("a")) == "identity_busy"
        await asyncio.gather(*at.node._probes.values())
        assert await at.refusal(Role.CLIENT, make_identity("a")) == DuplicateIdentityError.reason


async def test_sessions_are_capped_but_nodes_get_in() -> None:
    async with door(limits=ListenLimits(max_sessions=2)) as at:
        for name in ("a", "b"):
            await at.enter(Role.CLIENT, make_identity(name))
        assert await at.refusal(Role.CLIENT, make_identity("c")) == "overloaded"
        assert await at.refusal(Role.READER, None) == "overloaded"
        await at.enter(Role.AGGREGATOR, COMMITTEE.aggregators["root"])
        await at.sessions[0].close()
        await at.until_gone(at.sessions[0])
        await until(lambda: len(at.node.sessions()) == 2)


async def test_handshakes_in_progress_are_capped() -> None:
    async with door(limits=ListenLimits(max_handshakes=1, handshake_deadline_s=PATIENCE_S)) as at:
        transport = tls_of(COMMITTEE, None)

        async def connect() -> object:
            return await transport.connect(
                "127.0.0.1", at.port, expected_key=SERVER.public.ed25519, timeout_s=PATIENCE_S
            )

        dawdling = await connect()
        await until(lambda: at.node._handshakes == 1)
        with pytest.raises(TransportError):
            await at.enter(Role.CLIENT, make_identity("a"))
        await dawdling.close()  # type: ignore[attr-defined]
        await until(lambda: at.node._handshakes == 0)
        await at.enter(Role.CLIENT, make_identity("a"))


async def test_closing_ends_every_session() -> None:
    async with door() as at:
        sessions = [
            await at.enter(Role.CLIENT, make_identity("a")),
            await at.enter(Role.CLIENT, make_identity("b"), quic=True),
            await at.enter(Role.READER, None),
        ]
        await at.node.close()
        for session in sessions:
            await at.until_gone(session)
        assert at.node.sessions() == ()


async def test_a_stranger_of_another_instance_is_told_so() -> None:
    async with door() as at:
        terms = terms_of(COMMITTEE, make_identity("a"), Role.CLIENT)
        other = dataclasses.replace(terms, instance_id=InstanceId(bytes(32)))
        assert await at.refusal(Role.CLIENT, terms.identity, terms=other) == "unknown_instance"
