"""The session handshake: who is let in, who is refused, and what both sides are told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.transport.engines import PATIENCE_S, Engine, until_ended
from tests.conformance.transport.parties import (
    COMMITTEE_SECRET,
    Node,
    certificate,
    identity,
    served,
    terms,
)
from tests.harness.committee import HarnessCommittee
from zipnet.errors import (
    AdmissionError,
    DuplicateIdentityError,
    LocalProtocolError,
    PolicyMismatchError,
    RemoteProtocolError,
    SlowPeerError,
    TransportError,
    UnknownInstanceError,
    ZipnetError,
)
from zipnet.ports import Connection, PeerCertificate
from zipnet.protocol.committee_secrets import CommitteeSecrets
from zipnet.protocol.ids import GroupId, InstanceId, committee_fingerprint
from zipnet.protocol.secret import Secret
from zipnet.transport.session import HelloFacts, Role, SessionTerms, accept, initiate
from zipnet.wire.frames import Frame, SessionKind
from zipnet.wire.handshake import Hello, HelloReply


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_is_let_in_with_what_it_proved(engine: Engine, role: Role) -> None:
    node = Node(engine)
    async with node.running() as listener:
        shows = 2 if role in (Role.SERVER, Role.AGGREGATOR) else None
        session = await node.dial(listener.port, terms(2, role), with_certificate=shows)
        async with served(session):
            assert session.peer.peer_id == identity(1).peer_id
            assert session.peer.role is Role.SERVER
            assert session.peer.boot_id == bytes([1]) * 16
            assert session.peer.committee_proved is (role is Role.SERVER)
            assert (await session.request(30, b"abc")).payload == b"cba"
        facts = node.facts[0]
        seen = node.sessions[0].peer
    expected = None if role is Role.READER else identity(2).peer_id
    assert facts.peer_id == seen.peer_id == expected
    assert facts.role is seen.role is role
    assert facts.boot_id == seen.boot_id == bytes([2]) * 16
    assert facts.committee_proved is (role is Role.SERVER)
    on_tls = engine.name == "tls" and shows is not None
    assert facts.certificate_key == (identity(2).public.ed25519 if on_tls else None)


REFUSALS: dict[str, tuple[SessionTerms, type[ZipnetError], str]] = {
    "another instance": (
        terms(2, Role.CLIENT, instance_id=InstanceId(b"x" * 32)),
        UnknownInstanceError,
        "unknown_instance",
    ),
    "another group": (
        terms(2, Role.CLIENT, group_id=GroupId(b"x" * 32)),
        PolicyMismatchError,
        "policy_mismatch",
    ),
    "no common version": (terms(2, Role.CLIENT, versions=(7, 9)), AdmissionError, "version"),
    "another committee secret": (
        terms(2, Role.SERVER, committee_secret=Secret(bytes(range(32)))),
        AdmissionError,
        "bad_committee_proof",
    ),
}


@pytest.mark.parametrize(("other", "kind", "code"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_mismatch_is_named_alike_on_both_sides(
    engine: Engine, other: SessionTerms, kind: type[ZipnetError], code: str
) -> None:
    node = Node(engine)
    async with node.running() as listener:
        with pytest.raises(kind) as caught:
            await node.dial(listener.port, other)
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    for error in (caught.value, *node.refused):
        assert type(error) is kind
        assert (error.code if isinstance(error, AdmissionError) else error.reason) == code
    assert len(node.refused) == 1
    assert node.sessions == []
    assert node.facts == [], "the node is asked about proved facts only"


DECISIONS: dict[str, tuple[ZipnetError, type[ZipnetError]]] = {
    "not registered": (AdmissionError("who?", code="not_registered"), AdmissionError),
    "duplicate": (DuplicateIdentityError("already here"), DuplicateIdentityError),
    "later": (AdmissionError("full", code="overloaded", retry_after=2.5), AdmissionError),
}


@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize(("decision", "kind"), DECISIONS.values(), ids=DECISIONS.keys())
async def test_the_nodes_own_refusal_reaches_the_peer(
    engine: Engine, decision: ZipnetError, kind: type[ZipnetError], *, raised: bool
) -> None:
    def decide(facts: HelloFacts) -> ZipnetError | None:
        assert facts.peer_id == identity(2).peer_id
        if raised:
            raise decision
        return decision

    node = Node(engine, admit=decide)
    async with node.running() as listener:
        with pytest.raises(kind) as caught:
            await node.dial(listener.port, terms(2, Role.CLIENT))
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    assert str(caught.value) == str(decision)
    if isinstance(decision, AdmissionError) and isinstance(caught.value, AdmissionError):
        assert caught.value.code == decision.code
        assert caught.value.retry_after == decision.retry_after
    assert node.refused == [decision]


async def test_a_stolen_identity_without_its_key_is_refused(engine: Engine) -> None:
    """Identity 3 introduced by somebody who can only sign with the keys of 2."""
    node = Node(engine)

    class Thief:
        public = identity(3).public
        peer_id = identity(3).peer_id
        sign = staticmethod(identity(2).sign)

    async with node.running() as listener:
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, terms(2, Role.CLIENT, identity=Thief()))
    assert caught.value.code == "bad_proof"
    assert node.facts == []


async def test_an_identity_that_does_not_own_the_shown_certificate_is_refused() -> None:
    node = Node(Engine("tls"))
    async with node.running() as listener:
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, terms(2, Role.AGGREGATOR), with_certificate=3)
    assert caught.value.code == "identity_mismatch"


async def test_an_acceptor_that_does_not_own_its_certificate_is_refused(engine: Engine) -> None:
    node = Node(engine, terms=terms(3, Role.SERVER))  # listens under the certificate of 1
    async with node.running() as listener:
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, terms(2, Role.CLIENT))
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    assert caught.value.code == "identity_mismatch"
    assert node.sessions == []


EXPECTATIONS = {
    "another peer": ({"expected_peer": identity(3).peer_id}, "identity_mismatch"),
    "another role": ({"expected_role": Role.AGGREGATOR}, "not_registered"),
}


@pytest.mark.parametrize(("wants", "code"), EXPECTATIONS.values(), ids=EXPECTATIONS.keys())
async def test_an_acceptor_other_than_the_expected_one_is_refused(
    engine: Engine, wants: dict[str, object], code: str
) -> None:
    node = Node(engine)
    async with node.running() as listener:
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, terms(2, Role.CLIENT, **wants))
        met = terms(2, Role.CLIENT, expected_peer=identity(1).peer_id, expected_role=Role.SERVER)
        await (await node.dial(listener.port, met)).close()
    assert caught.value.code == code


async def test_an_acceptor_without_the_committee_secret_cannot_pass_for_a_server(
    engine: Engine,
) -> None:
    wrong = Secret(bytes(range(32)))

    node = Node(engine, terms=terms(1, Role.SERVER, committee_secret=wrong))
    async with node.running() as listener:
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, terms(2, Role.SERVER))
    assert caught.value.code == "bad_committee_proof"


OLD, NEW = bytes(range(32)), bytes(range(1, 33))
# What each side holds, the one in force first; and whether they may link.
ROTATIONS = {
    "neither has adopted": (([OLD, NEW], False), ([OLD, NEW], False), True),
    "one has adopted": (([OLD, NEW], True), ([OLD, NEW], False), True),
    "the other has adopted": (([OLD, NEW], False), ([OLD, NEW], True), True),
    "one was not given the new one": (([OLD], True), ([OLD, NEW], True), True),
    "the other was not given it": (([OLD, NEW], True), ([OLD], True), False),
    "one has the old one alone, after the window": (([OLD], False), ([NEW], True), False),
    "the other has it alone, after the window": (([NEW], True), ([OLD], False), False),
}


def _held(values: list[bytes], adopted: bool) -> CommitteeSecrets:
    first = HarnessCommittee().descriptor
    names = committee_fingerprint(Secret(NEW if adopted else OLD), first.descriptor.instance)
    descriptor = replace(first, descriptor=replace(first.descriptor, rotated_secret=names))
    return CommitteeSecrets(descriptor, map(Secret, values))


@pytest.mark.parametrize(
    ("ours", "theirs", "links"), ROTATIONS.values(), ids=[n.replace(" ", "-") for n in ROTATIONS]
)
async def test_servers_link_while_one_committee_secret_takes_anothers_place(
    engine: Engine, ours: tuple[list[bytes], bool], theirs: tuple[list[bytes], bool], links: bool
) -> None:
    node = Node(engine, terms=terms(1, Role.SERVER, committee_secret=_held(*theirs)))
    dialling = terms(2, Role.SERVER, committee_secret=_held(*ours))
    async with node.running() as listener:
        if links:
            session = await node.dial(listener.port, dialling)
            assert session.peer.committee_proved
            await session.close()
            return
        with pytest.raises(AdmissionError) as caught:
            await node.dial(listener.port, dialling)
    assert caught.value.code == "bad_committee_proof"


async def test_a_peer_that_never_says_hello_is_closed_at_the_deadline(engine: Engine) -> None:
    node = Node(engine, deadline_s=0.4)
    async with node.running() as listener:
        connection = await engine.connect(listener.port)
        assert await asyncio.wait_for(until_ended(connection), PATIENCE_S) == []
        await connection.close()
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    assert [type(error) for error in node.refused] == [SlowPeerError]


async def test_an_acceptor_that_never_answers_is_left_at_the_deadline(engine: Engine) -> None:
    async def mute(connection: Connection) -> None:
        await until_ended(connection)

    async with engine.listening(mute) as listener:
        connection = await engine.connect(listener.port)
        with pytest.raises(TransportError, match="too long"):
            await initiate(connection, terms(2, Role.CLIENT), deadline_s=0.3)


OUT_OF_TURN = {
    "a request": Frame(24, 1, b""),
    "a push": Frame(24, 0, b""),
    "the proof first": Frame(SessionKind.PROOF, 0, b""),
    "a ping": Frame(SessionKind.PING, 1, b""),
    "hello as a request": Frame(SessionKind.HELLO, 1, b""),
    "hello that is none": Frame(SessionKind.HELLO, 0, b"\x80"),
}


@pytest.mark.parametrize("frame", OUT_OF_TURN.values(), ids=OUT_OF_TURN.keys())
async def test_nothing_is_accepted_before_hello(engine: Engine, frame: Frame) -> None:
    node = Node(engine)
    async with node.running() as listener:
        connection = await engine.connect(listener.port)
        await connection.send(frame)
        assert await asyncio.wait_for(until_ended(connection), PATIENCE_S) == []
        await connection.close()
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    assert [type(error) for error in node.refused] == [RemoteProtocolError]
    assert node.facts == []


async def test_roles_without_the_identity_they_need_are_the_callers_mistake(
    engine: Engine,
) -> None:
    node = Node(engine)
    async with node.running() as listener:
        for wrong in (
            terms(2, Role.CLIENT, identity=None),
            terms(2, Role.READER, identity=identity(2)),
            terms(2, Role.SERVER, committee_secret=None),
        ):
            with pytest.raises(LocalProtocolError):
                await node.dial(listener.port, wrong)


# --- attacks on the messages themselves, over an in-memory link ----------------------------------


class Pipe:
    """Both ends of a link in memory; one end may rewrite what passes."""

    def __init__(self, local: bytes | None, peer: bytes | None) -> None:
        self.local_certificate = PeerCertificate(local)
        self.peer_certificate = PeerCertificate(peer)
        self.remote_address = "memory:0"
        self.inbox: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.other: Pipe = self
        self.sent: list[Frame] = []
        self.closed = False

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)
        self.other.inbox.put_nowait(frame)

    async def receive(self) -> Frame:
        frame = await self.inbox.get()
        if frame is None:
            raise TransportError("closed")
        return frame

    async def close(self, *, code: int = 0, reason: str = "") -> None:
        del code, reason
        if not self.closed:
            self.closed = True
            self.other.inbox.put_nowait(None)
            self.inbox.put_nowait(None)


def pipes(initiator_key: bytes | None = None) -> tuple[Pipe, Pipe]:
    acceptor_key = certificate(1).public_key
    left, right = Pipe(initiator_key, acceptor_key), Pipe(acceptor_key, initiator_key)
    left.other, right.other = right, left
    return left, right


async def _run_both(
    left: Connection, right: Connection, first: SessionTerms, second: SessionTerms
) -> list[object]:
    return list(
        await asyncio.gather(
            initiate(left, first, deadline_s=PATIENCE_S),
            accept(right, second, lambda _: None, deadline_s=PATIENCE_S),
            return_exceptions=True,
        )
    )


async def test_a_proof_recorded_on_one_channel_is_worthless_on_the_next() -> None:
    left, right = pipes()
    await _run_both(left, right, terms(2, Role.SERVER), terms(1, Role.SERVER))
    recorded = list(left.sent)
    assert [frame.kind for frame in recorded] == [SessionKind.HELLO, SessionKind.PROOF]
    replaying, right = pipes()
    for frame in recorded:
        await replaying.send(frame)
    with pytest.raises(AdmissionError) as caught:
        await accept(right, terms(1, Role.SERVER), lambda _: None, deadline_s=PATIENCE_S)
    assert caught.value.code == "bad_proof"


async def test_a_proof_relayed_to_another_certificate_key_is_worthless() -> None:
    """A middleman with a key of its own passes every message on unchanged."""
    left, right = pipes()
    left.peer_certificate = PeerCertificate(identity(3).public.ed25519)
    results = await _run_both(left, right, terms(2, Role.CLIENT), terms(1, Role.SERVER))
    assert all(isinstance(result, ZipnetError) for result in results)
    left, right = pipes()
    right.local_certificate = PeerCertificate(identity(3).public.ed25519)
    results = await _run_both(left, right, terms(2, Role.CLIENT), terms(1, Role.SERVER))
    assert isinstance(results[0], AdmissionError)
    assert results[0].code == "bad_proof"


async def test_the_committee_secret_never_travels_in_any_form_that_repeats() -> None:
    left, right = pipes()
    await _run_both(left, right, terms(2, Role.SERVER), terms(1, Role.SERVER))
    everything = b"".join(frame.payload for frame in left.sent + right.sent)
    assert COMMITTEE_SECRET not in everything
    assert COMMITTEE_SECRET[:8] not in everything


REWRITES: dict[str, tuple[SessionKind, dict[str, object]]] = {
    "offered versions": (SessionKind.HELLO, {"versions": [1, 2]}),
    "claimed role": (SessionKind.HELLO, {"role": "aggregator"}),
    "initiator nonce": (SessionKind.HELLO, {"nonce": bytes(32)}),
    "initiator boot": (SessionKind.HELLO, {"boot_id": bytes(16)}),
    "initiator identity": (SessionKind.HELLO, {"identity": identity(3).public.encode()}),
    "acceptor role": (SessionKind.HELLO_REPLY, {"role": "aggregator"}),
    "acceptor nonce": (SessionKind.HELLO_REPLY, {"nonce": bytes(32)}),
    "acceptor boot": (SessionKind.HELLO_REPLY, {"boot_id": bytes(16)}),
    "acceptor signature": (SessionKind.HELLO_REPLY, {"signature": bytes(3373)}),
    "initiator signature": (SessionKind.PROOF, {"signature": bytes(3373)}),
    "initiator's committee proof": (SessionKind.PROOF, {"committee_mac": bytes(32)}),
    "no committee proof": (SessionKind.PROOF, {"committee_mac": None}),
    "acceptor's committee proof": (SessionKind.WELCOME, {"committee_mac": bytes(32)}),
    "no committee proof in return": (SessionKind.WELCOME, {"committee_mac": None}),
}


class Rewriting(Pipe):
    """Changes one field of one message on its way out."""

    kind = SessionKind.HELLO
    change: dict[str, object] = {}  # noqa: RUF012 - set per test

    async def send(self, frame: Frame) -> None:
        if frame.kind == self.kind:
            raw = {**msgspec.msgpack.decode(frame.payload), **self.change}
            frame = replace(frame, payload=msgspec.msgpack.encode(raw))
        await super().send(frame)


@pytest.mark.parametrize(("kind", "change"), REWRITES.values(), ids=REWRITES.keys())
async def test_no_message_can_be_changed_on_the_way(
    kind: SessionKind, change: dict[str, object]
) -> None:
    key, own = certificate(1).public_key, certificate(2).public_key
    left, right = Rewriting(own, key), Rewriting(key, own)
    left.other, right.other = right, left
    for pipe in (left, right):
        pipe.kind, pipe.change = kind, change
    results = await _run_both(left, right, terms(2, Role.SERVER), terms(1, Role.SERVER))
    assert any(isinstance(result, AdmissionError) for result in results)
    # Who was shown a changed message never ends with a session.
    changed_for = 1 if kind in (SessionKind.HELLO, SessionKind.PROOF) else 0
    assert isinstance(results[changed_for], ZipnetError)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_place_of_any_message_end_in_one_of_our_errors(data: st.DataObject) -> None:
    """Random, flipped and cut payloads at each step of both sides, over an in-memory link."""
    kind = data.draw(
        st.sampled_from(
            [SessionKind.HELLO, SessionKind.HELLO_REPLY, SessionKind.PROOF, SessionKind.WELCOME]
        )
    )
    noise = data.draw(st.binary(max_size=64))
    at = data.draw(st.integers(0, 5000))
    mode = data.draw(st.sampled_from(["replace", "splice", "cut"]))

    class Noisy(Pipe):
        async def send(self, frame: Frame) -> None:
            if frame.kind == kind:
                payload = frame.payload
                place = at % (len(payload) + 1)
                changed = {
                    "replace": noise,
                    "splice": payload[:place] + noise + payload[place + len(noise) :],
                    "cut": payload[:place],
                }[mode]
                frame = replace(frame, payload=changed)
            await super().send(frame)

    async def run() -> tuple[list[object], bool]:
        key = certificate(1).public_key
        left, right = Noisy(None, key), Noisy(key, None)
        left.other, right.other = right, left
        results = await _run_both(left, right, terms(2, Role.SERVER), terms(1, Role.SERVER))
        return results, left.closed and right.closed

    results, closed = asyncio.run(run())
    for result in results:
        if isinstance(result, BaseException):
            assert isinstance(result, ZipnetError)
    if any(isinstance(result, BaseException) for result in results[:1]):
        assert closed or kind is SessionKind.WELCOME


def test_messages_hold_exactly_what_the_transcript_binds() -> None:
    """A field added to a message without a place in the transcript would travel unproved."""
    assert set(Hello.__struct_fields__) == {
        "versions",
        "instance_id",
        "group_id",
        "role",
        "identity",
        "nonce",
        "boot_id",
    }
    assert set(HelloReply.__struct_fields__) == {
        "version",
        "role",
        "identity",
        "nonce",
        "boot_id",
        "signature",
    }
