"""How the product is checked against each kind of layout vector; part of ``test_vectors``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tdx.policy import Policy
from tdx.trust import TrustRoot
from zipnet.machines import guard
from zipnet.protocol import command as commands
from zipnet.protocol import envelope as envelopes
from zipnet.protocol import ids
from zipnet.protocol.aggregate import Aggregate, Partial, decode_aggregate, decode_partial
from zipnet.protocol.attestation import (
    ATTESTATION_OFF,
    AttestationMode,
    AttestationTerms,
    Gate,
)
from zipnet.protocol.descriptor import Descriptor
from zipnet.protocol.header import RoundHeader, SignedHeader, sign_header, verify_header
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, Identity, PublicIdentity
from zipnet.protocol.ids import (
    DescriptorVersion,
    Digest,
    GroupId,
    InstanceId,
    PeerId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
)
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.protocol.participants import Participants
from zipnet.protocol.record import Record, assemble_content, decode_record
from zipnet.protocol.registration import (
    EMPTY_REGISTRY_DIGEST,
    Encapsulation,
    RegistryChange,
    decode_announcement,
    decode_registration,
    extend_registry_digest,
    sign_announcement,
    sign_registration,
)
from zipnet.protocol.secret import Secret
from zipnet.transport.certificate import node_certificate
from zipnet.wire.frames import Frame, FrameDecoder, encode_frame
from zipnet.wire.handshake import Role, Side, Transcript, committee_mac, sign_transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vectors.testkit import Case

NOBODY = ids.derive("test-nobody")


def shape(case: Case) -> RoundParams:
    return RoundParams(num_slots=case.number("num-slots"), slot_bytes=case.number("slot-bytes"))


def identity_of(case: Case) -> Identity:
    return Identity.from_secret(Secret(case.data("secret")))


def indexes(case: Case) -> Participants:
    return Participants(RegistryIndex(int(text)) for text in case.texts("index"))


def check_header(case: Case) -> None:
    header = RoundHeader(
        group=GroupId(case.data("group")),
        round=RoundNumber(case.number("round")),
        descriptor_version=case.number("descriptor-version"),
        previous_final=RoundNumber(case.number("previous-final")),
        previous_record=Digest(case.data("previous-record")),
        schedule=Digest(case.data("schedule")),
        registry_version=case.number("registry-version"),
        registry_digest=Digest(case.data("registry-digest")),
        roster=tuple(ServerIndex(int(text)) for text in case.text("roster").split()),
        opener=ServerIndex(case.number("opener")),
        opened_at_ms=case.number("opened-at-ms"),
    )
    assert header.encode() == case.data("encoded")
    assert header.hash == case.data("output")
    assert RoundHeader.decode(case.data("encoded")) == header
    identity = identity_of(case)
    signed = sign_header(header, identity)
    assert signed.signature == case.data("signature")
    assert signed.encode() == case.data("signed")
    assert SignedHeader.decode(case.data("signed")) == signed
    keys = [NOBODY] * header.opener + [identity.public.ed25519]
    assert verify_header(signed, keys) == header


def check_header_bytes(case: Case) -> None:
    RoundHeader.decode(case.data("data"))


def check_signed_header_bytes(case: Case) -> None:
    SignedHeader.decode(case.data("data"))


def check_header_verification(case: Case) -> None:
    signed = SignedHeader.decode(case.data("data"))
    verify_header(signed, [case.data("key")] * 3)


def check_participants(case: Case) -> None:
    members, header_hash = indexes(case), Digest(case.data("header-hash"))
    assert members.encode() == case.data("encoded")
    assert Participants.decode(case.data("encoded")) == members
    assert members.digest == case.data("digest")
    # zipnet/node/server_acts.py makes the salt with this very call; test_uses holds it to that.
    salt = ids.keyed("participants-salt", case.data("secret"), header_hash)
    assert salt == case.data("salt")
    assert members.commitment(salt) == case.data("commitment")
    header = RoundHeader.decode(case.data("header"))
    assert header.hash == header_hash
    assert guard._digest(header, members) == case.data("release")


def check_participants_bytes(case: Case) -> None:
    Participants.decode(case.data("data"))


def check_release_entry(case: Case) -> None:
    released = guard.Released(RoundNumber(case.number("round")), Digest(case.data("digest")))
    assert released.encode() == case.data("encoded")
    assert guard.Released.decode(case.data("encoded")) == released


def check_release_entry_bytes(case: Case) -> None:
    guard.Released.decode(case.data("data"))


def check_envelope(case: Case) -> None:
    header, identity = RoundHeader.decode(case.data("header")), identity_of(case)
    sender, body = RegistryIndex(case.number("sender")), case.data("body")
    signed = envelopes._signed_bytes(header.round, header.hash, sender, body)
    assert signed == case.data("signed")
    envelope = envelopes.seal_envelope(header, sender, body, identity)
    assert envelope.signature == case.data("signature")


def check_aggregate(case: Case) -> None:
    aggregate = Aggregate(
        RoundNumber(case.number("round")),
        Digest(case.data("header-hash")),
        indexes(case),
        case.data("body"),
    )
    assert aggregate.encode() == case.data("blob")
    assert decode_aggregate(case.data("blob"), shape(case)) == (case.data("digest"), aggregate)


def check_aggregate_bytes(case: Case) -> None:
    decode_aggregate(case.data("data"), shape(case))


def check_partial(case: Case) -> None:
    partial = Partial(
        RoundNumber(case.number("round")),
        Digest(case.data("header-hash")),
        ServerIndex(case.number("server")),
        Digest(case.data("aggregate")),
        case.data("body"),
    )
    assert partial.encode() == case.data("blob")
    assert decode_partial(case.data("blob"), shape(case)) == (case.data("digest"), partial)


def check_partial_bytes(case: Case) -> None:
    decode_partial(case.data("data"), shape(case))


def check_signed_half(blob: bytes, case: Case) -> None:
    assert blob[:-HYBRID_SIGNATURE_BYTES] == case.data("signed")
    assert blob[-HYBRID_SIGNATURE_BYTES:][:64] == case.data("ed25519-half")


def check_announcement(case: Case) -> None:
    group, identity, public = GroupId(case.data("group")), identity_of(case), case.data("public")
    server, epoch = ServerIndex(case.number("server")), case.number("epoch")
    blob = sign_announcement(group, server, epoch, public, identity)
    check_signed_half(blob, case)
    found = decode_announcement(blob, group, [identity.public] * 3)
    assert (found.server, found.epoch, found.public) == (server, epoch, public)
    assert found.digest == ids.content_digest(blob)


def check_announcement_bytes(case: Case) -> None:
    committee = [PublicIdentity.decode(case.data("identity"))] * case.number("committee-size")
    decode_announcement(case.data("data"), GroupId(case.data("group")), committee)


def check_registration(case: Case) -> None:
    items: list[Encapsulation] = []
    for text in case.texts("ciphertext"):
        server, epoch, sealed = text.split()
        items.append(Encapsulation(ServerIndex(int(server)), int(epoch), bytes.fromhex(sealed)))
    group, identity, serial = GroupId(case.data("group")), identity_of(case), case.number("serial")
    evidence = Digest(case.data("evidence"))
    blob = sign_registration(group, serial, items, identity, evidence=evidence)
    check_signed_half(blob, case)
    found = decode_registration(blob, group, len(items))
    assert (found.identity, found.serial) == (identity.public, serial)
    assert found.encapsulations == tuple(items)
    assert found.evidence == evidence
    assert found.digest == ids.content_digest(blob)


def check_registration_bytes(case: Case) -> None:
    group, servers = GroupId(case.data("group")), case.number("committee-size")
    decode_registration(case.data("data"), group, servers)


def check_registry_change(case: Case) -> None:
    index, first = RegistryIndex(case.number("index")), RoundNumber(case.number("first-round"))
    change = RegistryChange(index, None, None, first)
    if case.texts("base"):
        change = RegistryChange(index, None, None, first, base=case.number("base"))
    if case.texts("peer"):
        client = (PeerId(case.data("peer")), case.data("key"))
        change = RegistryChange(index, client, Digest(case.data("registration")), first)
    assert change.encode() == case.data("encoded")
    assert RegistryChange.decode(case.data("encoded")) == change


def check_registry_change_bytes(case: Case) -> None:
    RegistryChange.decode(case.data("data"))


def check_registry_digest(case: Case) -> None:
    digest = EMPTY_REGISTRY_DIGEST
    for data in case.datas("change"):
        digest = extend_registry_digest(digest, RegistryChange.decode(data))
    assert digest == case.data("output")


def check_command(case: Case) -> None:
    data, group, identity = case.data("data"), GroupId(case.data("group")), identity_of(case)
    author = ServerIndex(case.number("author"))
    opened = commands.open_command(data, group, [case.data("key")] * 3)
    assert opened.author == author
    assert type(opened.command).__name__ == case.text("type")
    assert commands.sign_command(opened.command, author, group, identity) == data
    assert data[:-64] == case.data("body")


def check_command_bytes(case: Case) -> None:
    commands.open_command(case.data("data"), GroupId(case.data("group")), [case.data("key")] * 3)


def check_record(case: Case) -> None:
    params, header = shape(case), RoundHeader.decode(case.data("header"))
    content = assemble_content(
        header,
        sequence=case.number("sequence"),
        participants=case.number("participants"),
        commitment=Digest(case.data("commitment")),
        clear_body=case.data("clear"),
        params=params,
    )
    assert [state.name for state in content.states] == case.texts("state")
    assert content.encode() == case.data("content")
    assert content.schedule == case.data("schedule")
    assert content.hash == case.data("output")
    pairs = [text.split() for text in case.texts("signature")]
    signatures = tuple((ServerIndex(int(s)), bytes.fromhex(text)) for s, text in pairs)
    record = Record(content, signatures)
    assert record.encode() == case.data("data")
    assert decode_record(case.data("data"), params) == record


def check_record_bytes(case: Case) -> None:
    decode_record(case.data("data"), shape(case))


def attestation_of(case: Case) -> AttestationTerms:
    if case.text("tdx-mode") == "off":
        return ATTESTATION_OFF
    policies = {
        Gate(role): Policy().require_mrtd(value)
        for role, value in (text.split() for text in case.texts("gate"))
    }
    mode, lifetime = AttestationMode(case.text("tdx-mode")), case.number("lifetime")
    return AttestationTerms(mode, TrustRoot.intel(), policies, lifetime_s=lifetime)


def check_descriptor_group(case: Case) -> None:
    identity = Identity.from_secret(Secret(NOBODY)).public
    descriptor = Descriptor(
        version=DescriptorVersion(1),
        name=case.text("name"),
        universe=case.text("universe"),
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2027, 1, 1, tzinfo=UTC),
        max_absent=0,
        committee_fingerprint=Digest(case.data("fingerprint")),
        params=RoundParams(),
        cadence=Cadence(),
        attestation=attestation_of(case),
        servers=(),
        aggregators=(),
        operator=identity,
        signed_bytes=b"",
        signature=None,
    )
    assert descriptor.attestation.policy_digest() == case.data("policy")
    assert descriptor.attestation.root_digest() == case.data("trust-root")
    assert descriptor.group == case.data("output")


def check_certificate(case: Case) -> None:
    private_key = Ed25519PrivateKey.from_private_bytes(case.data("seed"))
    made = node_certificate(private_key, case.number("generation"))
    assert made.public_key == case.data("public")
    assert x509.load_der_x509_certificate(made.der).serial_number == case.number("serial")


def optional(text: str) -> bytes | None:
    return None if text == "none" else bytes.fromhex(text)


def check_transcript(case: Case) -> None:
    roles, nonces, boots = case.texts("role"), case.datas("nonce"), case.datas("boot")
    peer = optional(case.text("initiator-peer"))
    transcript = Transcript(
        versions=tuple(int(text) for text in case.texts("offered")),
        version=case.number("version"),
        instance_id=InstanceId(case.data("instance")),
        group_id=GroupId(case.data("group")),
        initiator_role=Role(roles[0]),
        acceptor_role=Role(roles[1]),
        initiator_peer=None if peer is None else PeerId(peer),
        acceptor_peer=PeerId(case.data("acceptor-peer")),
        initiator_nonce=nonces[0],
        acceptor_nonce=nonces[1],
        initiator_boot=boots[0],
        acceptor_boot=boots[1],
        acceptor_key=case.data("acceptor-key"),
        initiator_key=optional(case.text("initiator-key")),
    )
    assert transcript.encode() == case.data("encoded")
    identity, secret = identity_of(case), Secret(case.data("committee-secret"))
    for side in Side:
        name = side.name.lower()
        assert committee_mac(secret, transcript, side) == case.data(f"{name}-mac")
        signature = sign_transcript(identity, transcript, side)
        assert signature[:64] == case.data(f"{name}-half")


def check_frame(case: Case) -> None:
    frame = Frame(
        case.number("frame-kind"),
        case.number("request"),
        case.data("payload"),
        response=case.text("response") == "yes",
    )
    assert encode_frame(frame) == case.data("data")
    found: Sequence[Frame] = list(FrameDecoder().feed(case.data("data")))
    assert found == [frame]


def check_frame_bytes(case: Case) -> None:
    list(FrameDecoder().feed(case.data("data")))


LAYOUT_CHECKS: dict[str, Callable[[Case], None]] = {
    "header": check_header,
    "header-bytes": check_header_bytes,
    "signed-header-bytes": check_signed_header_bytes,
    "header-verification": check_header_verification,
    "participants": check_participants,
    "participants-bytes": check_participants_bytes,
    "release-entry": check_release_entry,
    "release-entry-bytes": check_release_entry_bytes,
    "envelope": check_envelope,
    "aggregate": check_aggregate,
    "aggregate-bytes": check_aggregate_bytes,
    "partial": check_partial,
    "partial-bytes": check_partial_bytes,
    "announcement": check_announcement,
    "announcement-bytes": check_announcement_bytes,
    "registration": check_registration,
    "registration-bytes": check_registration_bytes,
    "registry-change": check_registry_change,
    "registry-change-bytes": check_registry_change_bytes,
    "registry-digest": check_registry_digest,
    "command": check_command,
    "command-bytes": check_command_bytes,
    "record": check_record,
    "record-bytes": check_record_bytes,
    "descriptor-group": check_descriptor_group,
    "certificate": check_certificate,
    "transcript": check_transcript,
    "frame": check_frame,
    "frame-bytes": check_frame_bytes,
}
