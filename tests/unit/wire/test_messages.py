"""The messages are strict: what is not exactly one of them is refused, and nothing shows a body."""

from __future__ import annotations

import msgspec
import pytest

from zipnet.errors import RemoteProtocolError
from zipnet.wire import messages as m

MIB = 1024 * 1024
MESSAGES: dict[str, m.Message] = {
    "get kem keys": m.GetKemKeys(),
    "kem keys": m.KemKeys(announcements=[b"a", b"b", b"c"], evidence=[]),
    "register": m.Register(registration=b"r" * 64 * 1024, evidence=None),
    "registered": m.Registered(index=1, version=2, first_round=3),
    "subscribe from the start": m.Subscribe(from_sequence=0),
    "subscribe from now on": m.Subscribe(from_sequence=None),
    "subscribed": m.Subscribed(next_sequence=2**63 - 1, last_record=b"x", open_round=b"y"),
    "subscribed to nothing yet": m.Subscribed(next_sequence=0, last_record=None, open_round=None),
    "round opened": m.RoundOpened(header=b"h"),
    "record sealed": m.RecordSealed(record=b"r" * MIB),
    "round aborted": m.RoundAborted(round=1, why=255),
    "get records": m.GetRecords(from_sequence=0, limit=64),
    "records": m.Records(records=[b"a"] * 64, next_sequence=64),
    "get registry": m.GetRegistry(from_version=0),
    "registry page": m.RegistryPage(changes=[b"c" * 256], version=1),
    "submit envelope": m.SubmitEnvelope(
        round=1, header_hash=bytes(32), sender=2, body=b"b" * MIB, signature=bytes(64)
    ),
    "submit aggregate": m.SubmitAggregate(aggregate=b"a"),
    "get clock": m.GetClock(),
    "clock": m.Clock(wall_ms=1_900_000_000_000),
    "get version": m.GetVersion(),
    "version": m.Version(version="1" * 64),
    "accepted": m.Accepted(),
    "present capability": m.PresentCapability(token=b"t" * 4096),
    "revoked": m.Revoked(statements=[b"s" * 512] * 256),
    "put blob": m.PutBlob(blob=b"b"),
    "get blob": m.GetBlob(digest=bytes(32)),
    "blob": m.Blob(blob=b"b"),
    "no blob": m.Blob(blob=None),
    "kem keys with evidence": m.KemKeys(announcements=[b"a"], evidence=[b"e" * 128 * 1024]),
    "register with evidence": m.Register(registration=b"r", evidence=b"e"),
    "get kem evidence": m.GetKemEvidence(announcement=bytes(32)),
    "kem evidence": m.KemEvidence(evidence=b"e"),
    "version adopted": m.VersionAdopted(version=2),
    "get checkpoint": m.GetCheckpoint(),
    "signed checkpoint": m.SignedCheckpoint(note=b"n"),
    "get descriptor": m.GetDescriptor(version=2),
    "descriptor file": m.DescriptorFile(file=b"format = 1"),
    "get crowd": m.GetCrowd(),
    "crowd": m.Crowd(registered=3, version=4),
    "take seat": m.TakeSeat(member=1 << 40),
    "ask for seat": m.TakeSeat(member=None),
    "seat": m.Seat(blank=True),
}


def fields_of(message: m.Message) -> dict[str, object]:
    decoded = msgspec.msgpack.decode(m.encode(message))
    assert isinstance(decoded, dict)
    return decoded


def pack(fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def test_every_type_of_message_is_in_the_table_and_has_a_decoder() -> None:
    kinds = {type(message) for message in MESSAGES.values()}
    assert kinds == set(m._DECODERS) == set(m.Message.__subclasses__())


@pytest.mark.parametrize("title", MESSAGES)
def test_a_message_comes_back_as_it_was(title: str) -> None:
    message = MESSAGES[title]
    assert m.decode(m.encode(message), type(message)) == message


@pytest.mark.requirement("A5")
@pytest.mark.parametrize("title", MESSAGES)
def test_unknown_fields_are_refused(title: str) -> None:
    message = MESSAGES[title]
    with pytest.raises(RemoteProtocolError):
        m.decode(pack({**fields_of(message), "extra": 1}), type(message))


@pytest.mark.parametrize("title", [title for title in MESSAGES if fields_of(MESSAGES[title])])
def test_a_missing_field_is_refused(title: str) -> None:
    message = MESSAGES[title]
    for name in fields_of(message):
        fewer = {key: value for key, value in fields_of(message).items() if key != name}
        with pytest.raises(RemoteProtocolError):
            m.decode(pack(fewer), type(message))


@pytest.mark.parametrize("title", [title for title in MESSAGES if fields_of(MESSAGES[title])])
def test_a_value_of_another_type_is_refused(title: str) -> None:
    message = MESSAGES[title]
    for name, right in fields_of(message).items():
        for wrong in ("text", 1.5, True, {"a": 1}, [["nested"]], -1):
            if type(wrong) is type(right) is bool:
                continue
            with pytest.raises(RemoteProtocolError):
                m.decode(pack({**fields_of(message), name: wrong}), type(message))


@pytest.mark.parametrize("title", MESSAGES)
def test_bytes_behind_a_message_and_bytes_missing_are_refused(title: str) -> None:
    payload, kind = m.encode(MESSAGES[title]), type(MESSAGES[title])
    for bad in (payload + b"\0", payload + payload, payload[:-1], b""):
        with pytest.raises(RemoteProtocolError):
            m.decode(bad, kind)


OVERSIZE: dict[str, tuple[type[m.Message], dict[str, object]]] = {
    "a record of 1 MiB and a byte": (m.RecordSealed, {"record": bytes(MIB + 1)}),
    "a blob of 1 MiB and a byte": (m.PutBlob, {"blob": bytes(MIB + 1)}),
    "a registration of 64 KiB and a byte": (m.Register, {"registration": bytes(64 * 1024 + 1)}),
    "seventeen announcements": (m.KemKeys, {"announcements": [b""] * 17}),
    "sixty-five records": (m.Records, {"records": [b""] * 65, "next_sequence": 65}),
    "sixty-five records asked for": (m.GetRecords, {"from_sequence": 0, "limit": 65}),
    "no records asked for": (m.GetRecords, {"from_sequence": 0, "limit": 0}),
    "4,097 changes": (m.RegistryPage, {"changes": [b""] * 4097, "version": 1}),
    "a change of 257 bytes": (m.RegistryPage, {"changes": [bytes(257)], "version": 1}),
    "a digest of 33 bytes": (m.GetBlob, {"digest": bytes(33)}),
    "a digest of 31 bytes": (m.GetBlob, {"digest": bytes(31)}),
    "a number past 63 bits": (m.GetRegistry, {"from_version": 2**63}),
    "a reason past a byte": (m.RoundAborted, {"round": 1, "why": 256}),
    "a signature of 63 bytes": (
        m.SubmitEnvelope,
        {"round": 1, "header_hash": bytes(32), "sender": 1, "body": b"", "signature": bytes(63)},
    ),
}


@pytest.mark.parametrize("title", OVERSIZE)
def test_a_value_past_its_bound_is_refused(title: str) -> None:
    kind, fields = OVERSIZE[title]
    with pytest.raises(RemoteProtocolError):
        m.decode(pack(fields), kind)


@pytest.mark.spec("8.5")
@pytest.mark.parametrize("title", MESSAGES)
def test_no_message_shows_its_content(title: str) -> None:
    assert repr(MESSAGES[title]) == f"{type(MESSAGES[title]).__name__}(…)"


@pytest.mark.spec("8.5")
def test_a_refusal_repeats_nothing_the_peer_wrote() -> None:
    name = "\x1b[31mCANARY\n" * 1000
    with pytest.raises(RemoteProtocolError) as refused:
        m.decode(pack({name: 1}), m.Register)
    assert str(refused.value) == "not a Register message"


def test_kinds_leave_the_session_layer_its_numbers() -> None:
    assert min(m.Kind) >= 16
    assert len(set(m.Kind)) == len(m.Kind.__members__)
