"""Who may sit where after a loss of memory: blank seats, other lives, and only one's own seat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from zipnet.errors import ConsensusError, TransportError
from zipnet.node import seating as seating_module
from zipnet.node.seating import ForgetfulConsensus, Seating
from zipnet.ports import CommittedCommand, CommittedSnapshot
from zipnet.protocol.ids import ServerIndex
from zipnet.wire.messages import Kind, Message, Seat, TakeSeat, encode

FIRST, SECOND = b"first life".ljust(16), b"second life".ljust(16)


class FakeEngine:
    """An engine that says what it is told to say."""

    def __init__(self, *, blank: bool = True) -> None:
        self.blank = blank
        self.seated = False
        self.ids: tuple[int, ...] = (0, 1, 2)
        self.wanted: list[tuple[int, ...]] = []
        self.nothing_wanted = asyncio.Event()
        self.started = self.stopped = False

    def is_blank(self) -> bool:
        return self.blank

    def is_seated(self) -> bool:
        return self.seated

    def members(self) -> tuple[int, ...]:
        return self.ids

    def want_members(self, ids: Sequence[int]) -> None:
        self.wanted.append(tuple(ids))

    def want_no_change(self) -> None:
        self.wanted.append(())
        self.nothing_wanted.set()

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.stopped = True

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        return None

    async def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        yield (CommittedCommand(1, b"x"),)

    def compact(self, index: int, state: bytes) -> None:
        return None

    def receive(self, server: int, message: bytes) -> None:
        return None

    def link_changed(self, server: int, *, up: bool) -> None:
        return None

    def leader(self) -> int | None:
        return 0

    def caught_up(self) -> bool:
        return True


class FakeMesh:
    """Other servers that answer about a seat; None is silence."""

    def __init__(self, **answers: bool | None) -> None:
        self.answers = {int(name[1:]): answer for name, answer in answers.items()}
        self.asked: list[tuple[int, int | None]] = []
        self.was_asked = asyncio.Event()

    def connected(self) -> frozenset[int]:
        return frozenset(self.answers)

    async def request(
        self, server: ServerIndex, kind: Kind, message: Message, *, timeout_s: float
    ) -> bytes:
        assert kind is Kind.SEAT
        assert isinstance(message, TakeSeat)
        self.asked.append((server, message.member))
        self.was_asked.set()
        answer = self.answers[server]
        if answer is None:
            raise TransportError("silence")
        return encode(Seat(blank=answer))


async def until(mesh: FakeMesh, count: int) -> None:
    """Wait until that many questions were asked."""
    while len(mesh.asked) < count:
        mesh.was_asked.clear()
        await mesh.was_asked.wait()


def forgetful(mesh: FakeMesh, engine: FakeEngine) -> tuple[ForgetfulConsensus, list[int | None]]:
    built: list[int | None] = []

    def build(member: int | None) -> FakeEngine:
        built.append(member)
        return engine

    made = ForgetfulConsensus(server=ServerIndex(1), size=3, mesh=mesh, build=build)  # type: ignore[arg-type]
    return made, built


def test_a_seat_is_blank_without_log_and_without_an_earlier_life() -> None:
    engine = FakeEngine()
    seating = Seating(engine)
    assert seating.answer(1, FIRST, None).blank
    seating.heard(1, FIRST)
    assert seating.answer(1, FIRST, None).blank, "its own words are no other life's"
    assert not seating.answer(1, SECOND, None).blank
    assert seating.answer(2, SECOND, None).blank, "another seat is another matter"
    engine.blank = False
    assert not seating.answer(2, SECOND, None).blank


async def test_a_server_is_given_its_own_seat_and_no_other() -> None:
    engine = FakeEngine(blank=False)
    seating = Seating(engine)
    seating.answer(1, SECOND, 77)
    assert engine.wanted == [(0, 77, 2)]
    # Another one that comes back at the same time does not undo it.
    seating.answer(2, SECOND, 88)
    assert engine.wanted[-1] == (0, 77, 88)
    seating.answer(0, SECOND, None)
    assert len(engine.wanted) == 2, "a question moves nobody"
    seating.close()


async def test_a_wish_ends_with_the_life_that_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seating_module, "_WISH_S", 0.05)
    engine = FakeEngine(blank=False)
    seating = Seating(engine)
    seating.answer(1, FIRST, 77)
    # Meanwhile another leader gave the seat to the next life, which this server has not met.
    engine.ids = (0, 99, 2)
    async with asyncio.timeout(10):
        await engine.nothing_wanted.wait()
    assert engine.wanted == [(0, 77, 2), ()]
    seating.answer(2, SECOND, 88)
    assert engine.wanted[-1] == (0, 99, 88), "the dead life's wish is not among them"
    seating.close()


@pytest.mark.requirement("M1")
async def test_the_founding_id_is_taken_only_when_every_other_server_agrees() -> None:
    mesh = FakeMesh(s0=True, s2=None)
    consensus, built = forgetful(mesh, FakeEngine())
    await consensus.start()
    await until(mesh, 6)
    assert built == [], "one server is silent: it may know better"
    mesh.answers[2] = True
    async for _ in consensus.batches():
        break
    assert built == [None]
    await consensus.stop()


@pytest.mark.requirement("M1")
async def test_one_word_of_an_earlier_life_makes_it_another_member() -> None:
    mesh = FakeMesh(s0=True, s2=False)
    engine = FakeEngine(blank=False)
    consensus, built = forgetful(mesh, engine)
    await consensus.start()
    async for _ in consensus.batches():
        break
    (member,) = built
    assert member is not None
    assert member > 2, "no id the committee was founded with"
    # Not seated: it follows the log, and says and proposes nothing.
    assert not consensus.caught_up()
    with pytest.raises(ConsensusError, match="no seat"):
        await consensus.propose(b"x", timeout_s=0.1)
    await until(mesh, len(mesh.asked) + 2)
    assert (0, member) in mesh.asked
    engine.seated = True
    assert consensus.caught_up()
    await consensus.propose(b"x", timeout_s=0.1)
    await consensus.stop()
    assert engine.stopped


async def test_two_lives_draw_two_ids() -> None:
    drawn: set[int | None] = set()
    for _ in range(20):
        consensus, built = forgetful(FakeMesh(s0=False), FakeEngine())
        await consensus.start()
        async for _ in consensus.batches():
            break
        drawn.update(built)
        await consensus.stop()
    assert len(drawn) == 20
