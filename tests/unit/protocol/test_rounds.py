"""Header, envelope and registration: who said it, about which round, in which group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.harness.committee import SMALL, HarnessCommittee, make_draw, make_identity
from zipnet.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from zipnet.protocol.envelope import AdmittedEnvelope, Envelope, admit_envelope, seal_envelope
from zipnet.protocol.header import (
    RoundHeader,
    SignedHeader,
    decode_roster,
    encode_roster,
    sign_header,
    verify_header,
)
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.kem import encapsulate
from zipnet.protocol.registration import (
    Encapsulation,
    decode_announcement,
    decode_registration,
    sign_announcement,
    sign_registration,
)

COMMITTEE = HarnessCommittee()
KEYS = COMMITTEE.descriptor.committee_keys
GROUP = COMMITTEE.descriptor.group
HEADER = COMMITTEE.next_header()
ANNA, BERT = make_identity("anna"), make_identity("bert")
BODY = bytes(range(256)) * (SMALL.body_bytes // 256) + bytes(SMALL.body_bytes % 256)

# -- header --------------------------------------------------------------------------------------

HEADER_CHANGES: dict[str, dict[str, object]] = {
    "group": {"group": GroupId(bytes(32))},
    "round": {"round": RoundNumber(2)},
    "descriptor version": {"descriptor_version": 2},
    "previous final": {"round": RoundNumber(2), "previous_final": RoundNumber(1)},
    "previous record": {"previous_record": Digest(b"x" * 32)},
    "schedule": {"schedule": Digest(b"x" * 32)},
    "registry version": {"registry_version": 1},
    "registry digest": {"registry_digest": Digest(b"x" * 32)},
    "roster": {"roster": (ServerIndex(0), ServerIndex(1))},
    "opener": {"opener": ServerIndex(1)},
    "time": {"opened_at_ms": 1},
}


def test_the_table_of_changes_has_every_field() -> None:
    assert len(HEADER_CHANGES) == len(RoundHeader.__slots__)


@pytest.mark.spec("4.3")
@pytest.mark.parametrize("title", HEADER_CHANGES)
def test_every_field_is_in_the_hash_and_under_the_signature(title: str) -> None:
    signed = sign_header(HEADER, COMMITTEE.identities[0])
    other = replace(HEADER, **HEADER_CHANGES[title])  # type: ignore[arg-type]
    assert other.hash != HEADER.hash
    assert verify_header(signed, KEYS) == HEADER
    with pytest.raises(VerificationError):
        verify_header(SignedHeader(other, signed.signature), KEYS)


def test_a_header_is_its_openers_and_nobody_elses() -> None:
    with pytest.raises(VerificationError):
        verify_header(sign_header(HEADER, COMMITTEE.identities[1]), KEYS)
    outside = replace(HEADER, roster=(ServerIndex(0), ServerIndex(3)), opener=ServerIndex(3))
    with pytest.raises(RemoteProtocolError):
        verify_header(sign_header(outside, COMMITTEE.identities[0]), KEYS)


def test_a_roster_is_a_set_of_sixteen_bits() -> None:
    for bits in (0, 1, 0b101, 0xFFFF):
        assert encode_roster(decode_roster(bits)) == bits
    for bad in (-1, 16):
        with pytest.raises(LocalProtocolError):
            encode_roster([ServerIndex(bad)])


# -- envelope ------------------------------------------------------------------------------------


def admit(envelope: Envelope, header: RoundHeader = HEADER) -> AdmittedEnvelope:
    return admit_envelope(
        envelope,
        header_hash=header.hash,
        round_number=header.round,
        params=SMALL,
        sender_key=ANNA.public.ed25519,
    )


SEALED = seal_envelope(HEADER, RegistryIndex(3), BODY, ANNA)


def test_a_sealed_envelope_is_admitted_under_its_senders_key() -> None:
    assert admit(SEALED) == AdmittedEnvelope(RegistryIndex(3), BODY)


BAD_ENVELOPES: dict[str, tuple[dict[str, object], type[Exception]]] = {
    "another round": ({"round": RoundNumber(2)}, RemoteProtocolError),
    "another header": ({"header_hash": Digest(bytes(32))}, RemoteProtocolError),
    "a short body": ({"body": BODY[:-1]}, RemoteProtocolError),
    "a long body": ({"body": BODY + b"\0"}, RemoteProtocolError),
    "another body": ({"body": b"\xff" + BODY[1:]}, VerificationError),
    "another sender": ({"sender": RegistryIndex(4)}, VerificationError),
    "a short signature": ({"signature": SEALED.signature[:-1]}, VerificationError),
    "no signature": ({"signature": bytes(64)}, VerificationError),
}


@pytest.mark.parametrize("title", BAD_ENVELOPES)
def test_an_envelope_that_is_not_this_rounds_or_not_the_senders_is_refused(title: str) -> None:
    changes, error = BAD_ENVELOPES[title]
    with pytest.raises(error):
        admit(replace(SEALED, **changes))  # type: ignore[arg-type]


def test_another_clients_envelope_is_refused_under_this_key() -> None:
    with pytest.raises(VerificationError):
        admit(seal_envelope(HEADER, RegistryIndex(3), BODY, BERT))


@pytest.mark.spec("8.5")
def test_an_envelope_shows_neither_body_nor_signature() -> None:
    shown = repr(SEALED) + repr(admit(SEALED))
    assert SEALED.signature.hex() not in shown
    assert "body" not in shown
    assert "signature" not in shown


# -- announcement and registration ---------------------------------------------------------------


def test_an_announcement_is_its_servers_for_its_group() -> None:
    blobs = COMMITTEE.announcements()
    committee = COMMITTEE.descriptor.committee
    for server, blob in enumerate(blobs):
        assert decode_announcement(blob, GROUP, committee).server == server
    with pytest.raises(RemoteProtocolError, match="another group"):
        decode_announcement(blobs[0], GroupId(bytes(32)), committee)
    forged = sign_announcement(GROUP, ServerIndex(1), 1, bytes(1216), COMMITTEE.identities[0])
    with pytest.raises(VerificationError):
        decode_announcement(forged, GROUP, committee)


def registration(serial: int = 1) -> bytes:
    items: list[Encapsulation] = []
    committee = COMMITTEE.descriptor.committee
    for blob in COMMITTEE.announcements():
        announced = decode_announcement(blob, GROUP, committee)
        ciphertext, shared = encapsulate(announced.public, make_draw("anna"))
        shared.wipe()
        items.append(Encapsulation(announced.server, announced.epoch, ciphertext))
    return sign_registration(GROUP, serial, items, ANNA)


def test_a_registration_names_its_client_and_a_ciphertext_for_each_server() -> None:
    found = decode_registration(registration(serial=7), GROUP, 3)
    assert (found.identity.peer_id, found.serial) == (ANNA.peer_id, 7)
    assert [found.for_server(ServerIndex(i)).epoch for i in range(3)] == [1, 1, 1]
    with pytest.raises(RemoteProtocolError):
        found.for_server(ServerIndex(3))


def test_a_registration_counts_in_its_group_and_for_its_whole_committee_only() -> None:
    blob = registration()
    with pytest.raises(RemoteProtocolError, match="another group"):
        decode_registration(blob, GroupId(bytes(32)), 3)
    for servers in (2, 5):
        with pytest.raises(RemoteProtocolError, match="whole committee"):
            decode_registration(blob, GROUP, servers)


@pytest.mark.parametrize("at", [1, 40, 100, 2017, 2026, 2040, -1, -HYBRID_SIGNATURE_BYTES])
def test_both_halves_cover_all_of_a_registration(at: int) -> None:
    altered = bytearray(registration())
    altered[at] ^= 1
    with pytest.raises((RemoteProtocolError, VerificationError)):
        decode_registration(bytes(altered), GROUP, 3)


def test_nobody_registers_in_anothers_name() -> None:
    blob = registration()
    signed = blob[:-HYBRID_SIGNATURE_BYTES]
    with pytest.raises(VerificationError):
        decode_registration(signed + BERT.sign("registration", signed), GROUP, 3)
    with pytest.raises(VerificationError):
        decode_registration(signed + ANNA.sign("record", signed), GROUP, 3)
