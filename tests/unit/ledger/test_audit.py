"""The audit trail cannot be edited: any change is named by line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.committee import make_identity
from zipnet.errors import LocalProtocolError, VerificationError
from zipnet.ledger.audit import (
    AuditState,
    AuditVerifier,
    make_checkpoint,
    make_entry,
)
from zipnet.ledger.merkle import inclusion_proof, verify_inclusion

NODE, OTHER = make_identity("node"), make_identity("other")
AT = "2026-11-21T01:00:00.000Z"


def trail(count: int = 5) -> list[bytes]:
    state, lines = AuditState(), []
    for number in range(count):
        entry = make_entry(state, AT, "secret_read", {"key_id": f"k{number}", "count": number})
        state.take(entry)
        lines.append(entry.line())
    point = make_checkpoint(state, AT, NODE)
    state.take(point)
    last = make_entry(state, AT, "node_stopped", {})
    return [*lines, point.line(), last.line()]


LINES = trail()


@pytest.mark.requirement("A8")
def test_a_trail_verifies_with_its_writers_key_alone() -> None:
    verifier = AuditVerifier(NODE.public)
    verifier.read(LINES)
    assert verifier.checkpoints == 1
    assert verifier.state.next_sequence == len(LINES)
    assert verifier.state.since_checkpoint == 1


@settings(max_examples=300, deadline=None)
@given(st.integers(0, sum(map(len, LINES)) - 1), st.integers(1, 255))
def test_one_changed_byte_is_named_by_its_line(position: int, change: int) -> None:
    data = bytearray(b"".join(LINES))
    data[position] ^= change
    lines = bytes(data).splitlines(keepends=True)
    honest = b"".join(LINES)[:position].count(b"\n") + 1
    with pytest.raises(VerificationError) as error:
        AuditVerifier(NODE.public).read(lines)
    assert f"line {honest} " in str(error.value)


@pytest.mark.parametrize("gone", range(len(LINES) - 1))
def test_an_entry_that_was_taken_out_is_noticed(gone: int) -> None:
    with pytest.raises(VerificationError, match=f"line {gone + 1} "):
        AuditVerifier(NODE.public).read(LINES[:gone] + LINES[gone + 1 :])


def test_entries_in_another_order_are_noticed() -> None:
    with pytest.raises(VerificationError, match="line 2 "):
        AuditVerifier(NODE.public).read([LINES[0], LINES[2], LINES[1], *LINES[3:]])


def test_a_trail_made_anew_by_somebody_else_is_noticed_at_its_checkpoint() -> None:
    with pytest.raises(VerificationError, match="line 6 "):
        AuditVerifier(OTHER.public).read(LINES)


def test_without_a_key_the_chain_and_the_roots_are_checked() -> None:
    verifier = AuditVerifier()
    verifier.read(LINES)
    assert verifier.checkpoints == 1


def test_an_entry_can_be_proved_against_a_checkpoint() -> None:
    verifier = AuditVerifier(NODE.public)
    entries = [verifier.read_line(line) for line in LINES]
    bodies = [entry.body for entry in entries[:5]]
    root = bytes.fromhex(str(entries[5].fields["root"]))
    verify_inclusion(bodies[3], 3, 5, inclusion_proof(bodies, 3), root)


def test_a_field_that_is_not_on_the_list_is_not_written() -> None:
    with pytest.raises(LocalProtocolError, match="client"):
        make_entry(AuditState(), AT, "admitted", {"client": "zp1…"})
    with pytest.raises(LocalProtocolError):
        make_entry(AuditState(), AT, "x", {"reason": "r" * 10_000})
