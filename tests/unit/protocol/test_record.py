"""A record is believed when every step of its verification holds; each step has its forgery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import SMALL, HarnessCommittee, make_draw, make_identity
from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol import record as record_module
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, Identity
from zipnet.protocol.ids import (
    DescriptorVersion,
    Digest,
    GroupId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    SlotIndex,
)
from zipnet.protocol.participants import Participants
from zipnet.protocol.record import (
    RECORD_SIGNATURE_USE,
    Record,
    RecordContent,
    VerifiedRecord,
    assemble_content,
    decode_record,
    require_extends,
    verify_record,
)
from zipnet.protocol.slots import SlotState, encode_slot, fragment_message

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader

COMMITTEE = HarnessCommittee(max_absent=1)
STRICT = HarnessCommittee(max_absent=0)
SALT = Digest(b"s" * 32)


def body_for(header: RoundHeader) -> bytearray:
    """Slot 0 valid, slot 1 void, all others empty; two reservations."""
    body = bytearray(SMALL.body_bytes)
    fragment = fragment_message(b"hello", SMALL, make_draw("salt"))[0]
    width = SMALL.slot_bytes
    body[:width] = encode_slot(fragment, SMALL, header.hash, SlotIndex(0))
    body[width : 2 * width] = b"\xaa" * width
    body[SMALL.matrix_bytes + 5] = 9
    return body


def content_for(committee: HarnessCommittee = COMMITTEE, **changes: object) -> RecordContent:
    header = committee.next_header(**changes)
    return assemble_content(
        header,
        sequence=0,
        participants=3,
        commitment=Participants([RegistryIndex(1), RegistryIndex(2)]).commitment(SALT),
        clear_body=body_for(header),
        params=SMALL,
    )


def signed(
    content: RecordContent, servers: tuple[int, ...] = (0, 1, 2), by: HarnessCommittee = COMMITTEE
) -> Record:
    pairs = [
        (ServerIndex(s), by.identities[s].sign(RECORD_SIGNATURE_USE, content.hash)) for s in servers
    ]
    return Record(content, tuple(pairs))


GOOD = signed(content_for())


def refused(record: Record, words: str, committee: HarnessCommittee = COMMITTEE) -> None:
    with pytest.raises(VerificationError, match=words):
        verify_record(record, committee.descriptor)


def test_a_sound_record_verifies_and_says_what_it_holds() -> None:
    decoded = decode_record(GOOD.encode(), SMALL)
    assert decoded == GOOD
    verified = verify_record(decoded, COMMITTEE.descriptor)
    assert verified.hash == GOOD.content.hash
    assert (verified.round, verified.sequence) == (1, 0)
    assert list(verified.fragments) == [0]
    assert verified.fragments[SlotIndex(0)].payload.endswith(b"hello")
    assert verified.void_slots == (1,)
    states = verified.record.content.states
    assert [states.count(state) for state in SlotState] == [6, 1, 1]


@pytest.mark.requirement("Z27")
@pytest.mark.spec("8.5")
def test_the_record_shows_a_count_and_a_commitment_and_no_participants() -> None:
    """The record of two sets of one size differs in its commitment only, which needs the salt."""
    encoded: list[bytes] = []
    sets = [Participants(map(RegistryIndex, members)) for members in ((1, 2, 3), (4, 5, 900))]
    header = COMMITTEE.next_header()
    for members in sets:
        content = assemble_content(
            header,
            sequence=0,
            participants=len(members),
            commitment=members.commitment(SALT),
            clear_body=body_for(header),
            params=SMALL,
        )
        encoded.append(content.encode().replace(members.commitment(SALT), b""))
        assert members.encode() not in content.encode()
        assert bytes(members.digest) not in content.encode()
        assert members.commitment(Digest(bytes(32))) != members.commitment(SALT)
    assert encoded[0] == encoded[1]
    assert len(content_for().encode()) == len(encoded[0]) + 32


# -- step 1: the group and the roster --------------------------------------------------------------


def test_a_record_of_another_group_is_refused() -> None:
    refused(signed(content_for(group=GroupId(bytes(32)))), "another group")
    other = HarnessCommittee(max_absent=0)
    assert other.descriptor.group == COMMITTEE.descriptor.group, "max_absent is no parameter"


ROSTERS: dict[str, tuple[tuple[int, ...], str]] = {
    "too small": ((0,), "requires"),
    "a server that is none": ((0, 1, 3), "names servers"),
}


@pytest.mark.spec("8.4")
@pytest.mark.parametrize("title", ROSTERS)
def test_a_roster_the_descriptor_does_not_allow_is_refused(title: str) -> None:
    roster, words = ROSTERS[title]
    content = content_for(roster=tuple(ServerIndex(i) for i in roster))
    refused(signed(content, (0,)), words)


@pytest.mark.spec("8.4")
def test_leaving_a_server_out_is_the_descriptors_choice() -> None:
    pair = (ServerIndex(0), ServerIndex(2))
    verify_record(signed(content_for(roster=pair), (0, 2)), COMMITTEE.descriptor)
    refused(signed(content_for(STRICT, roster=pair), (0, 2), STRICT), "requires 3", STRICT)


# -- step 2: the count -----------------------------------------------------------------------------


@pytest.mark.spec("8.3")
def test_a_record_of_too_few_participants_is_refused_whoever_signed_it() -> None:
    for count in (0, 1):
        refused(signed(replace(GOOD.content, participants=count)), "minimum is 2")
    verify_record(signed(replace(GOOD.content, participants=2)), COMMITTEE.descriptor)


# -- step 3: the signatures ------------------------------------------------------------------------


def test_too_few_signatures_are_refused() -> None:
    verify_record(signed(GOOD.content, (0, 2)), COMMITTEE.descriptor)
    for servers in ((), (1,)):
        refused(signed(GOOD.content, servers), "2 are required")
    refused(signed(content_for(STRICT), (0, 1), STRICT), "3 are required", STRICT)


def test_a_signer_outside_the_roster_is_refused() -> None:
    pair = (ServerIndex(0), ServerIndex(2))
    refused(signed(content_for(roster=pair), (0, 1, 2)), "outside its roster")


def test_one_signature_twice_is_not_two() -> None:
    pair = GOOD.signatures[0]
    with pytest.raises(RemoteProtocolError, match="ascending"):
        decode_record(Record(GOOD.content, (pair, pair)).encode(), SMALL)
    refused(Record(GOOD.content, (pair, pair)), "2 are required")


@pytest.mark.parametrize("at", [0, 63, 64, HYBRID_SIGNATURE_BYTES - 1])
@pytest.mark.parametrize("position", [0, 2])
def test_every_signature_counts_in_both_halves(at: int, position: int) -> None:
    server, signature = GOOD.signatures[position]
    broken = bytearray(signature)
    broken[at] ^= 1
    pairs = list(GOOD.signatures)
    pairs[position] = (server, bytes(broken))
    refused(Record(GOOD.content, tuple(pairs)), "signature")


def test_signatures_of_others_or_for_other_uses_are_refused() -> None:
    swapped = [
        (ServerIndex(0), GOOD.signatures[1][1]),
        (ServerIndex(1), GOOD.signatures[0][1]),
    ]
    refused(Record(GOOD.content, tuple(swapped)), "signature")
    stranger: Identity = make_identity("stranger")
    forged = (ServerIndex(0), stranger.sign(RECORD_SIGNATURE_USE, GOOD.content.hash))
    refused(Record(GOOD.content, (forged, GOOD.signatures[1])), "signature")
    other_use = COMMITTEE.identities[0].sign("header", GOOD.content.hash)
    refused(Record(GOOD.content, ((ServerIndex(0), other_use), GOOD.signatures[1])), "signature")


CHANGES: dict[str, Callable[[RecordContent], RecordContent]] = {
    "round": lambda c: replace(c, header=replace(c.header, round=RoundNumber(9))),
    "sequence": lambda c: replace(c, sequence=1),
    "participants": lambda c: replace(c, participants=4),
    "commitment": lambda c: replace(c, commitment=Digest(bytes(32))),
    "an empty slot filled": lambda c: replace(
        c,
        states=(*c.states[:7], SlotState.VOID),
        slots=(*c.slots[:7], b"x" * SMALL.slot_bytes),
    ),
    "a slot emptied": lambda c: replace(
        c, states=(SlotState.EMPTY, *c.states[1:]), slots=(b"", *c.slots[1:])
    ),
    "reservations": lambda c: replace(c, reservations=b"\1" + c.reservations[1:]),
}


@pytest.mark.spec("8.7")
@pytest.mark.parametrize("title", CHANGES)
def test_nothing_of_the_content_changes_under_its_signatures(title: str) -> None:
    refused(Record(CHANGES[title](GOOD.content), GOOD.signatures), "signature")


# -- step 4: the slots -----------------------------------------------------------------------------

LIES: dict[str, tuple[int, SlotState]] = {
    "a valid slot is called void": (0, SlotState.VOID),
    "a void slot is called valid": (1, SlotState.VALID),
}


@pytest.mark.parametrize("title", LIES)
def test_a_slot_is_what_every_reader_finds_it_to_be(title: str) -> None:
    """The committee's signatures do not make a lie about a slot true."""
    index, state = LIES[title]
    states = list(GOOD.content.states)
    states[index] = state
    refused(signed(replace(GOOD.content, states=tuple(states))), f"slot {index}")


def test_an_empty_slot_called_void_is_refused() -> None:
    states, slots = list(GOOD.content.states), list(GOOD.content.slots)
    states[3], slots[3] = SlotState.VOID, bytes(SMALL.slot_bytes)
    refused(signed(replace(GOOD.content, states=tuple(states), slots=tuple(slots))), "slot 3")


def test_slots_are_bound_to_their_round() -> None:
    """Slots moved under another header are void there, and must be recorded so."""
    moved = replace(GOOD.content, header=replace(GOOD.content.header, round=RoundNumber(2)))
    refused(signed(moved), "slot 0")


# -- the chain -------------------------------------------------------------------------------------


def chain(count: int, fork: bytes = b"") -> list[VerifiedRecord]:
    found: list[VerifiedRecord] = []
    for sequence in range(count):
        last = found[-1] if found else None
        header = COMMITTEE.next_header(
            round=RoundNumber(2 * sequence + 1),
            previous_final=last.round if last else RoundNumber(0),
            previous_record=last.hash if last else Digest(bytes(32)),
        )
        body = bytearray(SMALL.body_bytes)
        body[SMALL.matrix_bytes : SMALL.matrix_bytes + len(fork)] = fork
        content = assemble_content(
            header,
            sequence=sequence,
            participants=2,
            commitment=SALT,
            clear_body=body,
            params=SMALL,
        )
        found.append(verify_record(signed(content, (0, 1)), COMMITTEE.descriptor))
    return found


def test_records_follow_each_other_without_a_gap_or_a_fork() -> None:
    ours, theirs = chain(3), chain(3, fork=b"\1")
    require_extends(ours[0], None)
    require_extends(ours[1], ours[0])
    require_extends(ours[2], ours[1])
    for newer, older in (
        (ours[1], None),
        (ours[2], ours[0]),
        (ours[1], ours[1]),
        (ours[0], ours[1]),
        (theirs[1], ours[0]),
        (ours[2], theirs[1]),
    ):
        with pytest.raises(VerificationError):
            require_extends(newer, older)


SECONDS: dict[str, tuple[int, int]] = {
    "a sequence is left out": (2, 1),
    "a sequence is given twice": (0, 1),
    "another last final round": (1, 0),
}


@pytest.mark.parametrize("title", SECONDS)
def test_the_right_hash_alone_does_not_continue_the_chain(title: str) -> None:
    sequence, final = SECONDS[title]
    first, second = chain(2)
    header = replace(second.record.content.header, previous_final=RoundNumber(final))
    content = replace(second.record.content, header=header, sequence=sequence)
    assert header.previous_record == first.hash
    with pytest.raises(VerificationError):
        require_extends(verify_record(signed(content, (0, 1)), COMMITTEE.descriptor), first)


def test_a_first_record_that_claims_a_past_is_refused() -> None:
    record = chain(2)[1].record
    content = replace(record.content, sequence=0)
    pretended = verify_record(signed(content, (0, 1)), COMMITTEE.descriptor)
    with pytest.raises(VerificationError, match="extend"):
        require_extends(pretended, None)


def under(record: VerifiedRecord, version: int, last: VerifiedRecord | None) -> VerifiedRecord:
    """The same record, of a round that was held under another version of the descriptor."""
    header = replace(
        record.record.content.header,
        descriptor_version=DescriptorVersion(version),
        previous_record=last.hash if last else Digest(bytes(32)),
    )
    body = bytearray(SMALL.body_bytes)
    content = assemble_content(
        header,
        sequence=record.sequence,
        participants=2,
        commitment=SALT,
        clear_body=body,
        params=SMALL,
    )
    return verify_record(signed(content, (0, 1)), COMMITTEE.descriptor)


def test_no_record_of_an_older_version_continues_the_chain() -> None:
    """Keys of servers that were replaced are of no use for what came after."""
    first, second = chain(2)
    earlier = under(first, 2, None)
    for version in (2, 3):
        require_extends(under(second, version, earlier), earlier)
    with pytest.raises(VerificationError, match="version 1 after version 2"):
        require_extends(under(second, 1, earlier), earlier)


# -- mutants: each check is what refuses -----------------------------------------------------------


def test_the_signature_check_is_what_refuses_changed_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_module, "verify_hybrid", lambda *_: None)
    changed = Record(CHANGES["participants"](GOOD.content), GOOD.signatures)
    assert verify_record(changed, COMMITTEE.descriptor).record.content.participants == 4


def test_the_slot_check_is_what_refuses_a_lie_about_a_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_module, "_require_slots", lambda *_: {})
    states = (SlotState.VOID, *GOOD.content.states[1:])
    lie = signed(replace(GOOD.content, states=states))
    assert verify_record(lie, COMMITTEE.descriptor).void_slots == (0, 1)
