"""Capabilities shown in a session: whose they are, how many, and how long they count (row L2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from zipnet.access.capability import CapabilityRole, inspect_capability
from zipnet.access.minting import attenuate_capability, issuer_key, mint_capability
from zipnet.access.revoked import RevokedBook
from zipnet.access.terms import AccessTerms
from zipnet.errors import AdmissionError, RemoteProtocolError
from zipnet.node.capabilities import SessionCapabilities
from zipnet.protocol.ids import GroupId, PeerId
from zipnet.protocol.revocation import Revocation, RevokedKind
from zipnet.protocol.secret import Secret
from zipnet.wire.messages import Accepted, Kind, PresentCapability, encode

if TYPE_CHECKING:
    from zipnet.transport.session import Session

GROUP = GroupId(bytes(range(32)))
PEER, OTHER = PeerId(bytes(32)), PeerId(bytes([1]) * 32)
NOW = 1_800_000_000
PUBLISH = CapabilityRole.PUBLISH


def secret() -> Secret:
    return Secret(bytearray(range(1, 33)))


class Link:
    """A session as far as capabilities look at one."""

    def __init__(self, peer: PeerId | None) -> None:
        self.peer = SimpleNamespace(peer_id=peer)


def session(peer: PeerId | None = PEER) -> Session:
    return cast("Session", Link(peer))


class Door:
    """One node that asks publishers for a capability."""

    def __init__(self, *, asks: bool = True) -> None:
        self.now = float(NOW)
        self.book = RevokedBook()
        with secret() as key:
            terms = AccessTerms((issuer_key(key),), frozenset({PUBLISH}))
        self.shown = SessionCapabilities(
            terms if asks else AccessTerms(), GROUP, self.book, lambda: self.now
        )

    async def show(self, link: Session, token: bytes) -> str:
        try:
            answer = await self.shown.present(link, encode(PresentCapability(token=token)))
        except AdmissionError as error:
            return error.code
        assert isinstance(answer, Accepted)
        return "accepted"

    def ask(self, link: Session) -> str:
        try:
            self.shown.check(link, Kind.REGISTER)
        except AdmissionError as error:
            return error.code
        return "let in"


def mint(peer: PeerId | None = None) -> bytes:
    with secret() as key:
        return mint_capability(
            key, group=GROUP, roles=[PUBLISH], now_s=NOW, lifetime_s=60, peer=peer
        )


@pytest.mark.requirement("L2")
async def test_a_capability_counts_in_the_session_that_showed_it_and_until_it_ends() -> None:
    door, mine, theirs = Door(), session(), session(OTHER)
    assert door.ask(mine) == "capability_missing"
    assert await door.show(mine, mint()) == "accepted"
    assert (door.ask(mine), door.ask(theirs)) == ("let in", "capability_missing")
    door.now += 60
    assert door.ask(mine) == "capability_expired"


@pytest.mark.requirement("L2")
async def test_a_stolen_token_is_worth_nothing_without_the_peers_key() -> None:
    door, thief, nobody = Door(), session(OTHER), session(None)
    token = mint(PEER)
    assert await door.show(thief, token) == "capability_presenter"
    assert await door.show(nobody, token) == "capability_presenter"
    assert door.ask(thief) == "capability_missing"
    assert await door.show(session(PEER), token) == "accepted"


@pytest.mark.requirement("Z26")
async def test_who_registered_by_a_revoked_capability_is_named_once() -> None:
    door, mine, theirs = Door(), session(), session(OTHER)
    token = mint()
    with secret() as key:
        less = attenuate_capability(token, issuer_key(key), expires_s=NOW + 30)
    assert await door.show(mine, less) == "accepted"
    assert await door.show(theirs, mint()) == "accepted"
    door.shown.registered(mine)
    door.shown.registered(theirs)
    assert door.shown.forget_revoked() == ()
    root = inspect_capability(token).ids[0]
    door.book.add(Revocation(RevokedKind.TOKEN, root, NOW, bytes(32)), b"statement")
    assert door.shown.forget_revoked() == (PEER,)
    assert door.shown.forget_revoked() == ()
    assert await door.show(session(), less) == "capability_revoked"


async def test_a_session_guesses_no_more_than_a_few_times() -> None:
    door, link = Door(), session()
    codes = [await door.show(link, b"guess") for _ in range(66)]
    assert codes[:64] == ["capability_issuer"] * 64
    assert codes[64:] == ["overloaded"] * 2
    assert await door.show(session(), mint()) == "accepted"


async def test_a_node_that_asks_for_none_looks_at_none() -> None:
    door, link = Door(asks=False), session()
    assert await door.show(link, b"whatever") == "accepted"
    assert door.ask(link) == "let in"
    assert door.shown.shown_by(link) is None
    with pytest.raises(RemoteProtocolError):
        await door.shown.present(link, b"no message")
