"""Binding: what is in report data, windows, relays and reflections."""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha512
from typing import TYPE_CHECKING

import pytest

from tdx.binding import (
    Challenge,
    Direction,
    Ticket,
    check_own_quote,
    renew_at,
    verify_bound,
)
from tdx.errors import Check, PolicyError, QuoteError
from tests.tdx.forged import NOW, POLICY, emulator

if TYPE_CHECKING:
    from tdx.verify import Verdict

TICKET = Ticket(
    application="example",
    network_id=b"n" * 32,
    role="server",
    spki=b"an SPKI",
    protocol_keys=(b"kem key", b"signing key"),
    not_before=NOW - 10,
    not_after=NOW + 290,
    boot_id=b"b" * 32,
)
CHALLENGE = Challenge(
    ticket=TICKET,
    nonce=b"1" * 32,
    exporter=b"2" * 32,
    attester_certificate=b"3" * 32,
    verifier_certificate=b"4" * 32,
    direction=Direction.RESPONDER_ATTESTS,
)


def check(binding: Ticket | Challenge, seen: Ticket | Challenge, *, now: int = NOW) -> Verdict:
    """Quote ``binding`` and verify it against what the verifier sees."""
    one = emulator()
    return verify_bound(
        one.quote(binding.report_data()),
        one.bundle(),
        seen,
        root=one.trust_root,
        now=now,
        policy=POLICY,
    )


def refused(binding: Ticket | Challenge, seen: Ticket | Challenge, *, now: int = NOW) -> Check:
    with pytest.raises(QuoteError) as caught:
        check(binding, seen, now=now)
    return caught.value.check


def test_the_layout_is_the_designed_one() -> None:
    """Lay it out by hand, apart from the code."""

    def part(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    expected = sha512(
        b"example/tdx-binding/v1"
        + part(b"n" * 32)
        + part(b"server")
        + part(b"an SPKI")
        + part(part(b"kem key") + part(b"signing key"))
        + part((NOW - 10).to_bytes(8, "big"))
        + part((NOW + 290).to_bytes(8, "big"))
        + part(b"b" * 32)
        + part(b"")
    ).digest()
    assert TICKET.report_data() == expected


def test_a_ticket_and_a_challenge_pass_when_both_sides_see_the_same() -> None:
    assert check(TICKET, TICKET).report_data_checked
    assert check(CHALLENGE, CHALLENGE).report_data_checked


OTHER_TICKETS = {
    "application": replace(TICKET, application="another"),
    "network": replace(TICKET, network_id=b"m" * 32),
    "role": replace(TICKET, role="client"),
    "relayed: other TLS key": replace(TICKET, spki=b"another"),
    "protocol key": replace(TICKET, protocol_keys=(b"kem key", b"other key")),
    "keys joined": replace(TICKET, protocol_keys=(b"kem keysigning key",)),
    "keys swapped": replace(TICKET, protocol_keys=(b"signing key", b"kem key")),
    "start": replace(TICKET, not_before=NOW - 9),
    "end": replace(TICKET, not_after=NOW + 291),
    "boot": replace(TICKET, boot_id=b"c" * 32),
}
OTHER_CHALLENGES = {
    "nonce": replace(CHALLENGE, nonce=b"0" * 32),
    "session": replace(CHALLENGE, exporter=b"0" * 32),
    "relayed: other certificate": replace(CHALLENGE, attester_certificate=b"0" * 32),
    "verifier": replace(CHALLENGE, verifier_certificate=b"0" * 32),
    "direction": replace(CHALLENGE, direction=Direction.INITIATOR_ATTESTS),
    "reflected": replace(CHALLENGE, attester_certificate=b"4" * 32, verifier_certificate=b"3" * 32),
    "ticket": replace(CHALLENGE, ticket=OTHER_TICKETS["boot"]),
}


@pytest.mark.parametrize("title", OTHER_TICKETS)
def test_a_ticket_for_something_else_is_refused(title: str) -> None:
    assert refused(TICKET, OTHER_TICKETS[title]) is Check.REPORT_DATA


@pytest.mark.parametrize("title", OTHER_CHALLENGES)
def test_a_challenge_for_something_else_is_refused(title: str) -> None:
    assert refused(CHALLENGE, OTHER_CHALLENGES[title]) is Check.REPORT_DATA


def test_every_field_is_covered_by_a_case() -> None:
    assert len(OTHER_TICKETS) >= len(fields(Ticket))
    assert len(OTHER_CHALLENGES) >= len(fields(Challenge))
    values: list[Ticket | Challenge] = [
        TICKET,
        CHALLENGE,
        *OTHER_TICKETS.values(),
        *OTHER_CHALLENGES.values(),
    ]
    assert len({one.report_data() for one in values}) == len(values)


def test_a_ticket_does_not_answer_a_challenge_nor_the_reverse() -> None:
    assert refused(TICKET, CHALLENGE) is Check.REPORT_DATA
    assert refused(CHALLENGE, TICKET) is Check.REPORT_DATA


def test_the_window_is_short_and_closes_to_the_second() -> None:
    assert check(TICKET, TICKET, now=TICKET.not_after).verified_at == TICKET.not_after
    assert refused(TICKET, TICKET, now=TICKET.not_after + 1) is Check.BINDING_WINDOW
    early = TICKET.not_before - 30
    assert check(TICKET, TICKET, now=early).verified_at == early
    assert refused(TICKET, TICKET, now=early - 1) is Check.BINDING_WINDOW
    longest = replace(TICKET, not_after=TICKET.not_before + 600)
    assert check(longest, longest).report_data_checked
    long = replace(TICKET, not_after=TICKET.not_before + 601)
    assert refused(long, long) is Check.BINDING_WINDOW
    assert refused(replace(CHALLENGE, ticket=long), replace(CHALLENGE, ticket=long)) is (
        Check.BINDING_WINDOW
    )


def test_the_attester_looks_at_its_own_quote_before_it_shows_it() -> None:
    one = emulator()
    check_own_quote(one.quote(TICKET.report_data()), TICKET)
    with pytest.raises(QuoteError) as caught:
        check_own_quote(one.quote(CHALLENGE.report_data()), TICKET)
    assert caught.value.check is Check.REPORT_DATA


def test_a_ticket_is_renewed_at_two_thirds() -> None:
    assert renew_at(TICKET) == NOW - 10 + 200


def test_the_first_and_last_instants_and_an_empty_window_can_be_bound() -> None:
    last = 2**63 - 1
    for start, end in ((0, 0), (NOW, NOW), (last, last)):
        assert len(replace(TICKET, not_before=start, not_after=end).report_data()) == 64
    with pytest.raises(PolicyError):
        replace(TICKET, not_after=last + 1)


def test_bindings_that_bind_nothing_cannot_be_made() -> None:
    for changes in (
        {"not_after": TICKET.not_before - 1},
        {"not_before": -1},
        {"network_id": b"short"},
        {"boot_id": b""},
        {"application": ""},
        {"application": "ünique"},
        {"spki": b""},
    ):
        with pytest.raises(PolicyError):
            replace(TICKET, **changes)
    with pytest.raises(PolicyError):
        replace(CHALLENGE, nonce=b"")


def test_reprs_do_not_show_nonce_or_exporter() -> None:
    assert "11111111" not in repr(CHALLENGE)
    assert "22222222" not in repr(CHALLENGE)
