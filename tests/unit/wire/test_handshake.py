"""The transcript's layout, the proofs over it, and how a refusal crosses the wire."""

from __future__ import annotations

import struct
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

from zipnet.errors import (
    AdmissionError,
    ConfigError,
    DuplicateIdentityError,
    PolicyMismatchError,
    RemoteProtocolError,
    UnknownInstanceError,
    ZipnetError,
)
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import GroupId, InstanceId, PeerId
from zipnet.protocol.secret import Secret
from zipnet.wire.handshake import (
    Hello,
    Proof,
    Refusal,
    Role,
    Side,
    Transcript,
    Welcome,
    committee_mac,
    decode_handshake,
    encode_handshake,
    error_to_refusal,
    refusal_to_error,
    sign_transcript,
    verify_committee_mac,
    verify_transcript,
)


def _b(number: int, size: int = 32) -> bytes:
    return bytes([number]) * size


SERVERS = Transcript(
    versions=(1, 2),
    version=1,
    instance_id=InstanceId(_b(1)),
    group_id=GroupId(_b(2)),
    initiator_role=Role.SERVER,
    acceptor_role=Role.SERVER,
    initiator_peer=PeerId(_b(3)),
    acceptor_peer=PeerId(_b(4)),
    initiator_nonce=_b(5),
    acceptor_nonce=_b(6),
    initiator_boot=_b(7, 16),
    acceptor_boot=_b(8, 16),
    acceptor_key=_b(9),
    initiator_key=_b(10),
)

CHANGES: dict[str, Any] = {
    "versions": (1,),
    "version": 2,
    "instance_id": _b(11),
    "group_id": _b(11),
    "initiator_role": Role.AGGREGATOR,
    "acceptor_role": Role.AGGREGATOR,
    "initiator_peer": None,
    "acceptor_peer": _b(11),
    "initiator_nonce": _b(11),
    "acceptor_nonce": _b(11),
    "initiator_boot": _b(11, 16),
    "acceptor_boot": _b(11, 16),
    "acceptor_key": _b(11),
    "initiator_key": None,
}


def test_the_transcript_is_laid_out_as_documented() -> None:
    expected = (
        bytes([2])
        + struct.pack("!HHH", 1, 2, 1)
        + _b(1)
        + _b(2)
        + bytes([4, 4])
        + (b"\x01" + _b(3))
        + _b(4)
        + _b(5)
        + _b(6)
        + _b(7, 16)
        + _b(8, 16)
        + _b(9)
        + (b"\x01" + _b(10))
    )
    assert SERVERS.encode() == expected
    anonymous = replace(SERVERS, initiator_peer=None, initiator_key=None)
    assert anonymous.encode().endswith(_b(9) + bytes(33))


def test_every_field_of_the_transcript_is_bound() -> None:
    assert set(CHANGES) == {field.name for field in fields(Transcript)}
    encodings = {SERVERS.encode()}
    for name, value in CHANGES.items():
        encodings.add(replace(SERVERS, **{name: value}).encode())
    assert len(encodings) == len(CHANGES) + 1


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.from_secret(Secret(bytes(range(32))))


@pytest.mark.parametrize("changed", CHANGES)
def test_a_signature_over_another_transcript_is_refused(identity: Identity, changed: str) -> None:
    signature = sign_transcript(identity, SERVERS, Side.INITIATOR)
    verify_transcript(identity.public, SERVERS, Side.INITIATOR, signature)
    other = replace(SERVERS, **{changed: CHANGES[changed]})
    with pytest.raises(AdmissionError) as caught:
        verify_transcript(identity.public, other, Side.INITIATOR, signature)
    assert caught.value.code == "bad_proof"


def test_proofs_cannot_be_reflected(identity: Identity) -> None:
    signature = sign_transcript(identity, SERVERS, Side.INITIATOR)
    with pytest.raises(AdmissionError):
        verify_transcript(identity.public, SERVERS, Side.ACCEPTOR, signature)
    secret = Secret(bytes(range(32)))
    mac = committee_mac(secret, SERVERS, Side.INITIATOR)
    verify_committee_mac([secret], SERVERS, Side.INITIATOR, mac)
    with pytest.raises(AdmissionError):
        verify_committee_mac([secret], SERVERS, Side.ACCEPTOR, mac)


def test_a_committee_proof_needs_the_secret_and_never_holds_it() -> None:
    secret, other = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
    mac = committee_mac(secret, SERVERS, Side.ACCEPTOR)
    assert mac != bytes(range(32))
    for wrong in (committee_mac(other, SERVERS, Side.ACCEPTOR), None, b"", mac[:31]):
        with pytest.raises(AdmissionError) as caught:
            verify_committee_mac([secret], SERVERS, Side.ACCEPTOR, wrong)
        assert caught.value.code == "bad_committee_proof"


HELLO = Hello(
    versions=[1],
    instance_id=_b(1),
    group_id=_b(2),
    role=Role.CLIENT,
    identity=_b(3, 1984),
    nonce=_b(4),
    boot_id=_b(5, 16),
)


def test_hello_comes_back_and_shows_nothing() -> None:
    assert decode_handshake(encode_handshake(HELLO), Hello) == HELLO
    assert repr(HELLO) == "Hello(…)"


BAD_HELLOS: dict[str, dict[str, object]] = {
    "no version": {"versions": []},
    "version 0": {"versions": [0]},
    "nine versions": {"versions": [1] * 9},
    "short group": {"group_id": _b(2, 31)},
    "long instance": {"instance_id": _b(2, 33)},
    "unknown role": {"role": "admin"},
    "short identity": {"identity": _b(3, 1983)},
    "text for a nonce": {"nonce": "x" * 32},
    "long boot id": {"boot_id": _b(5, 17)},
    "unknown field": {"admin": True},
}


@pytest.mark.parametrize("change", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
def test_a_hello_outside_its_schema_is_refused(change: dict[str, object]) -> None:
    raw = msgspec.msgpack.decode(encode_handshake(HELLO))
    with pytest.raises(RemoteProtocolError):
        decode_handshake(msgspec.msgpack.encode({**raw, **change}), Hello)


def test_a_missing_field_trailing_bytes_and_other_messages_are_refused() -> None:
    raw = msgspec.msgpack.decode(encode_handshake(HELLO))
    del raw["nonce"]
    welcome = encode_handshake(Welcome(committee_mac=None))
    for payload in (msgspec.msgpack.encode(raw), encode_handshake(HELLO) + b"\0", welcome, b""):
        with pytest.raises(RemoteProtocolError):
            decode_handshake(payload, Hello)
    with pytest.raises(RemoteProtocolError):
        decode_handshake(encode_handshake(Welcome(committee_mac=None)), Proof)


ERRORS: dict[str, tuple[ZipnetError, str]] = {
    "instance": (UnknownInstanceError("not here"), "unknown_instance"),
    "policy": (PolicyMismatchError("differs"), "policy_mismatch"),
    "duplicate": (DuplicateIdentityError("taken"), "duplicate_identity"),
    "admission": (AdmissionError("no", code="not_registered", retry_after=2.5), "not_registered"),
    "anything else": (ConfigError("broken"), "config"),
}


@pytest.mark.parametrize(("error", "code"), ERRORS.values(), ids=ERRORS.keys())
def test_a_refusal_keeps_code_words_and_class(error: ZipnetError, code: str) -> None:
    crossed = decode_handshake(encode_handshake(error_to_refusal(error)), Refusal)
    assert crossed.code == code
    back = refusal_to_error(crossed)
    assert str(back) == str(error)
    if code in ("unknown_instance", "policy_mismatch", "duplicate_identity"):
        assert type(back) is type(error)
        assert back.reason == code
    else:
        assert isinstance(back, AdmissionError)
        assert back.code == code
        assert back.retry_after == getattr(error, "retry_after", None)


def test_a_refusals_words_cannot_steer_a_terminal_and_its_hint_stays_at_home() -> None:
    error = AdmissionError("a\x1b[2J\nb" + "x" * 300, hint="the operator's own business")
    refusal = error_to_refusal(error)
    assert refusal.reason.startswith("a[2Jbxxx")
    assert len(refusal.reason) == 200
    hostile = Refusal(code="x", reason="\x1b]0;owned\x07", retry_after=None)
    assert str(refusal_to_error(hostile)) == "]0;owned"


@pytest.mark.parametrize("retry_after", [float("nan"), float("inf"), -1.0, 1e9])
def test_a_retry_time_is_always_a_sane_number(retry_after: float) -> None:
    told = error_to_refusal(AdmissionError("no", retry_after=retry_after)).retry_after
    assert told is not None
    assert 0 <= told <= 86_400
    raw = {"code": "x", "reason": "", "retry_after": retry_after}
    try:
        crossed = decode_handshake(msgspec.msgpack.encode(raw), Refusal)
    except RemoteProtocolError:
        return
    error = refusal_to_error(crossed)
    assert isinstance(error, AdmissionError)
    assert error.retry_after is None or 0 <= error.retry_after <= 86_400


@pytest.mark.parametrize("code", ["", "UPPER", "with space", "x" * 49, "a\n", "1a"])
def test_refusal_codes_are_plain_words(code: str) -> None:
    raw = {"code": code, "reason": "", "retry_after": None}
    with pytest.raises(RemoteProtocolError):
        decode_handshake(msgspec.msgpack.encode(raw), Refusal)
