"""Signed notes, checkpoints and tiles, against what other tools of transparency logs produce."""

from __future__ import annotations

import base64
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.committee import HarnessCommittee, make_identity
from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.ledger.checkpoint import (
    LogCheckpoint,
    checkpoint_key,
    open_checkpoint,
    origin_of,
    sign_checkpoint,
)
from zipnet.ledger.merkle import leaf_hash, root_of
from zipnet.ledger.note import Note, NoteKey, parse_note, sign_note
from zipnet.ledger.tiles import tile_path, tiles_of
from zipnet.protocol.identity import Identity, verify_ed25519_note
from zipnet.protocol.ids import ServerIndex

# The example of Go's package golang.org/x/mod/sumdb/note: key, text and signature.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
).encode()

COMMITTEE = HarnessCommittee()
TRUSTED = COMMITTEE.descriptor
CHECKPOINT = LogCheckpoint(origin_of(TRUSTED), 7, bytes(range(32)))


def _signed(server: int = 0) -> Note:
    return sign_checkpoint(CHECKPOINT, ServerIndex(server), COMMITTEE.identities[server])


def test_the_example_of_gos_implementation_verifies_here() -> None:
    note = parse_note(GO_NOTE)
    name, key_id, public = GO_KEY.split("+", 2)
    key = base64.b64decode(public)
    assert key[0] == 1
    (line,) = note.signatures
    assert (line.name, line.key_id.hex()) == (name, key_id)
    assert sha256(name.encode() + b"\n" + key).digest()[:4] == line.key_id
    verify_ed25519_note(key[1:], note.text.encode(), line.signature)
    with pytest.raises(VerificationError):
        verify_ed25519_note(key[1:], note.text.encode() + b" ", line.signature)


def test_our_verifier_keys_are_written_as_gos() -> None:
    key = NoteKey("a.test/log", make_identity("note").public)
    name, key_id, public = key.verifier_key.split("+", 2)
    raw = base64.b64decode(public)
    assert (name, raw[1:]) == ("a.test/log", key.identity.ed25519)
    assert sha256(name.encode() + b"\n" + raw).hexdigest()[:8] == key_id


def test_a_checkpoint_names_who_signed_it() -> None:
    one, two = _signed(0), _signed(2)
    both = one.merged(two.signatures).merged(one.signatures)
    found = open_checkpoint(both.encode(), TRUSTED)
    assert found.checkpoint == CHECKPOINT
    assert found.servers == {0, 2}
    assert len(found.note.signatures) == 4
    assert open_checkpoint(one.encode(), TRUSTED).servers == {0}


def test_a_witness_is_kept_and_not_believed() -> None:
    stranger = sign_note(CHECKPOINT.text, "witness.test/w", make_identity("witness"))
    with pytest.raises(VerificationError, match="no committee server"):
        open_checkpoint(stranger.encode(), TRUSTED)
    found = open_checkpoint(_signed(1).merged(stranger.signatures).encode(), TRUSTED)
    assert found.servers == {1}
    assert len(found.note.signatures) == 4


def test_half_a_signature_is_none() -> None:
    note = _signed(1)
    for half in note.signatures:
        with pytest.raises(VerificationError, match="no committee server"):
            open_checkpoint(Note(note.text, (half,)).encode(), TRUSTED)


def test_another_text_under_the_same_signatures_is_refused() -> None:
    other = LogCheckpoint(CHECKPOINT.origin, 8, CHECKPOINT.root)
    with pytest.raises(VerificationError, match="does not verify"):
        open_checkpoint(Note(other.text, _signed().signatures).encode(), TRUSTED)


def test_what_a_server_signed_before_its_key_was_replaced_still_counts() -> None:
    newcomer = make_identity("newcomer")
    later = replace(
        TRUSTED,
        committee=(newcomer.public, *TRUSTED.committee[1:]),
        earlier=(TRUSTED,),
    )
    assert open_checkpoint(_signed(0).encode(), later).servers == {0}
    fresh = sign_checkpoint(CHECKPOINT, ServerIndex(0), newcomer)
    assert open_checkpoint(fresh.encode(), later).servers == {0}
    with pytest.raises(VerificationError, match="no committee server"):
        open_checkpoint(_signed(0).encode(), replace(later, earlier=()))


def test_another_log_is_refused() -> None:
    other = LogCheckpoint("other.test/00", 7, CHECKPOINT.root)
    note = sign_checkpoint(other, ServerIndex(0), COMMITTEE.identities[0])
    with pytest.raises(VerificationError, match="another log"):
        open_checkpoint(note.encode(), TRUSTED)


def test_a_servers_key_under_another_servers_name_is_not_that_server() -> None:
    name = checkpoint_key(TRUSTED, ServerIndex(1)).name
    with pytest.raises(VerificationError, match="no committee server"):
        open_checkpoint(sign_note(CHECKPOINT.text, name, COMMITTEE.identities[0]).encode(), TRUSTED)


@pytest.mark.parametrize(
    "text",
    [
        f"{CHECKPOINT.origin}\n07\n{'A' * 43}=\n",
        f"{CHECKPOINT.origin}\n-7\n{'A' * 43}=\n",
        f"{CHECKPOINT.origin}\n\N{ARABIC-INDIC DIGIT SEVEN}\n{'A' * 43}=\n",
        f"{CHECKPOINT.origin}\n7\n{'A' * 43}\n",
        f"{CHECKPOINT.origin}\n7\n{'A' * 20}==\n",
        f"{CHECKPOINT.origin}\n7\n{'A' * 42}B=\n",
        f"{CHECKPOINT.origin}\n7\n{'A' * 43}=\nmore\n",
        f"{CHECKPOINT.origin}\n7\n",
        f"{CHECKPOINT.origin}\n{'9' * 20}\n{'A' * 43}=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    note = sign_note(text, "a.test/log", make_identity("note"))
    with pytest.raises(RemoteProtocolError):
        open_checkpoint(note.encode(), TRUSTED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\nname AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 na+me AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 name AAAA\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAA=",
        b"bad\xff\n\n\xe2\x80\x94 name AAAAAAA=\n",
        b"bad\x01\n\n\xe2\x80\x94 name AAAAAAA=\n",
        b" text\n\n\xe2\x80\x94 name AAAAAAA=\n",
        b"text\r\n\n\xe2\x80\x94 name AAAAAAA=\n",
        b"text\n\n" + 65 * "— name AAAAAAA=\n".encode(),
        b"text\n\n\xe2\x80\x94 name AAAAAAB=\n",  # another spelling of the same bytes
        b"x" * (256 * 1024 + 1),
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_note(data)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_note_or_an_error_of_ours(data: bytes) -> None:
    try:
        note = parse_note(b"text\n\n" + data)
    except RemoteProtocolError:
        return
    assert note.encode() == b"text\n\n" + data


def test_a_note_cannot_be_taken_for_anything_else_an_identity_signs() -> None:
    """Labels are short: what is signed with one begins with a zero byte, which no note may."""
    identity: Identity = make_identity("note")
    text = (b"\x00\x20" + b"zipnet").decode()
    with pytest.raises(VerificationError):
        sign_note(text + "\n", "a.test/log", identity)


def test_paths_of_tiles_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(2, 0, 1) == "tile/2/000.p/1"
    assert tile_path(None, 273, 112) == "tile/entries/273.p/112"


def test_a_log_of_70000_entries_has_the_tiles_the_specification_counts() -> None:
    entries = [n.to_bytes(4, "big") for n in range(70_000)]
    found = dict(tiles_of(entries))
    by_level = {
        level: sorted(p for p in found if p.startswith(f"tile/{level}/")) for level in (0, 1, 2)
    }
    assert len(by_level[0]) == 274
    assert "tile/0/273.p/112" in found
    assert by_level[1] == ["tile/1/000", "tile/1/001.p/17"]
    assert by_level[2] == ["tile/2/000.p/1"]
    assert found["tile/2/000.p/1"] == root_of(entries[:65_536])
    assert found["tile/1/000"][:32] == root_of(entries[:256])
    assert found["tile/0/000"][32:64] == leaf_hash(entries[1])
    assert found["tile/entries/000"][:12] == b"\0\4" + entries[0] + b"\0\4" + entries[1]
    full = dict(tiles_of(entries[:256]))
    assert sorted(full) == ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]
