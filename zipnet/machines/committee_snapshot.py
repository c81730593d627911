"""The committee's replicated state as bytes: what stands in place of the log that led to it.

Servers that applied the same commands have the same bytes, and whoever restores them answers every
later command as if it had applied all earlier ones itself. What only one server knows — who is
connected, which chains and blobs it has — is not in here.

Layout (big-endian; ``count · item`` is a list with its length in front)::

    state = version u8 ‖ group 32 ‖ descriptor version u64
          ‖ phase u8 ‖ last round u64 ‖ last final u64 ‖ last record 32 ‖ schedule 32
          ‖ next sequence u64 ‖ registry version used last u64
          ‖ kem u8 · (server u8 ‖ epoch u64 ‖ announcement 32)         by server
          ‖ signed header var16                                        empty while idle
          ‖ chosen u8 · (aggregate 32 ‖ participants 32 ‖ count u32)   none or one
          ‖ partials u8 · (server u8 ‖ digest 32)                      by server
          ‖ signatures u8 · (server u8 ‖ record 32 ‖ schedule 32 ‖ signature)   in log order
          ‖ missed u8 · (server u8 ‖ roster u16)                       by server
          ‖ registry digest 32 ‖ changes u32 · var16
          ‖ serials u32 · (peer 32 ‖ serial u64)                       longest unused first
          ‖ revocations u32 · var16                                    version 2 only, in log order

Rules:

1. There is one way to write a state: version 1 where nothing was revoked, else version 2; anything
   else is refused with :class:`~zipnet.errors.RemoteProtocolError`, and never half taken.
2. The registry is written as its changes and checked against the digest chained over them.
3. Kept of closed rounds: their number, the last record's hash, schedule and sequence. Kept of the
   registry: the changes since its last new beginning, at most 4,096 or four for each client
   (``CommitteeState._trim_registry``), 113 bytes each and their length. Kept of clients who left:
   their last serial, of at most twice ``max_clients`` clients, 40 bytes each. With 100,000 clients,
   the most there may be, that is 54 MB, too large to be kept: from some 80,000 on the log grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from zipnet.machines.committee import MAX_REVOCATIONS, CommitteeState, Phase
from zipnet.machines.committee_outcomes import KemAnnounced
from zipnet.protocol.command import ChooseAggregate, SignRecord
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.header import SignedHeader, decode_roster, encode_roster
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES
from zipnet.protocol.ids import Digest, PeerId, RoundNumber, ServerIndex, derive
from zipnet.protocol.registration import RegistryChange
from zipnet.protocol.revocation import MAX_STATEMENT_BYTES
from zipnet.protocol.succession import succeed

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["MAX_STATE_BYTES", "decode_state", "encode_state", "state_digest"]

MAX_STATE_BYTES: Final = 48 << 20
_VERSION: Final = 1
_WITH_REVOCATIONS: Final = 2
_WITH_VERSIONS: Final = 3
_MAX_HEADER: Final = 512
_MAX_CHANGE: Final = 128
_PHASES: Final = (Phase.IDLE, Phase.OPEN, Phase.CHOSEN, Phase.REVEALED)


def encode_state(state: CommitteeState) -> bytes:
    """Return the one way to write ``state`` down.

    Raises:
        LocalProtocolError: It is larger than :data:`MAX_STATE_BYTES`.
    """
    version = _WITH_REVOCATIONS if state.revoked else _VERSION
    if state.descriptor.earlier or state.offers:
        version = _WITH_VERSIONS
    writer = Writer().u8(version).fixed(state.descriptor.group, 32)
    writer.u64(state.descriptor.descriptor.version)
    if version == _WITH_VERSIONS:
        _write_versions(writer, state)
    writer.u8(_PHASES.index(state.phase)).u64(state.last_round).u64(state.last_final)
    writer.fixed(state.last_record, 32).fixed(state.schedule, 32)
    writer.u64(state.next_sequence).u64(state.registry_version).u8(len(state.kem))
    for _, announced in sorted(state.kem.items()):
        writer.u8(announced.server).u64(announced.epoch).fixed(announced.announcement, 32)
    _write_round(writer, state)
    _write_registry(writer, state)
    if version != _VERSION:
        writer.u32(len(state.revoked))
        for statement in state.revoked.values():
            writer.var16(statement)
    data = writer.take()
    if len(data) > MAX_STATE_BYTES:
        raise LocalProtocolError(f"a committee state of {len(data)} bytes is too large to keep")
    return data


def _write_versions(writer: Writer, state: CommitteeState) -> None:
    """The versions after the one the log began under: each is signed by the one before it."""
    after = (*state.descriptor.earlier, state.descriptor)[1:]
    writer.u16(len(after))
    for item in after:
        writer.var32(item.descriptor.file)
    state.offers.write(writer)


def _read_versions(reader: Reader, state: CommitteeState) -> None:
    count = reader.u16()
    try:
        for _ in range(count):
            file = reader.var32(max_len=MAX_DESCRIPTOR_BYTES)
            state.descriptor = succeed(state.descriptor, file)
    except VerificationError as error:
        raise RemoteProtocolError("a committee state under a version that is not ours") from error
    if not state.offers.read(reader, state.descriptor):
        raise RemoteProtocolError("a committee state with an impossible offer")


def _write_round(writer: Writer, state: CommitteeState) -> None:
    writer.var16(b"" if state.signed is None else state.signed.encode())
    chosen = state.chosen
    writer.u8(0 if chosen is None else 1)
    if chosen is not None:
        writer.fixed(chosen.aggregate, 32).fixed(chosen.participants, 32).u32(chosen.count)
    writer.u8(len(state.partials))
    for server, digest in sorted(state.partials.items()):
        writer.u8(server).fixed(digest, 32)
    # In the order of the log: where two contents have enough signatures, the first one counts.
    writer.u8(len(state.signatures))
    for server, item in state.signatures.items():
        writer.u8(server).fixed(item.record, 32).fixed(item.schedule, 32)
        writer.fixed(item.signature, HYBRID_SIGNATURE_BYTES)
    writer.u8(len(state.missed))
    for server, missing in sorted(state.missed.items()):
        writer.u8(server).u16(encode_roster(missing))


def _write_registry(writer: Writer, state: CommitteeState) -> None:
    registry = state.registry
    changes = registry.changes_from(registry.base_version, registry.version)
    writer.fixed(registry.digest, 32).u32(len(changes))
    for change in changes:
        writer.var16(change.encode())
    writer.u32(len(state.serials))
    for peer, serial in state.serials.items():
        writer.fixed(peer, 32).u64(serial)


def decode_state(
    data: bytes, descriptor: TrustedDescriptor, *, max_clients: int = 100_000
) -> CommitteeState:
    """Return the state ``data`` was written from.

    Args:
        data: What :func:`encode_state` returned, here or on another server.
        descriptor: The descriptor the log began under, or a later one with those before it.
        max_clients: As for :class:`~zipnet.machines.committee.CommitteeState`.

    Raises:
        RemoteProtocolError: The bytes are no state of this group under this descriptor.
    """
    if len(data) > MAX_STATE_BYTES:
        raise RemoteProtocolError("a committee state of an impossible size")
    reader = Reader(data)
    state = CommitteeState(descriptor.founding, max_clients=max_clients)
    version = reader.u8()
    named = (reader.fixed(32), reader.u64())
    if version == _WITH_VERSIONS:
        _read_versions(reader, state)
    known = version in (_VERSION, _WITH_REVOCATIONS, _WITH_VERSIONS)
    if not known or named != (descriptor.group, state.descriptor.version):
        raise RemoteProtocolError("a committee state of another layout, group or descriptor")
    phase = reader.u8()
    if phase >= len(_PHASES):
        raise RemoteProtocolError("a committee state in an unknown phase")
    state.phase = _PHASES[phase]
    state.last_round, state.last_final = RoundNumber(reader.u64()), RoundNumber(reader.u64())
    state.last_record, state.schedule = Digest(reader.fixed(32)), Digest(reader.fixed(32))
    state.next_sequence, state.registry_version = reader.u64(), reader.u64()
    for _ in range(reader.u8()):
        server, epoch = ServerIndex(reader.u8()), reader.u64()
        state.kem[server] = KemAnnounced(server, epoch, Digest(reader.fixed(32)))
    _read_round(reader, state)
    _read_registry(reader, state)
    if version != _VERSION:
        _read_revocations(reader, state)
    reader.finish()
    # What was sorted, named once, and in bounds writes itself again byte for byte.
    if encode_state(state) != data:
        raise RemoteProtocolError("a committee state that is not written in the one way")
    _require_sense(state)
    return state


def _read_round(reader: Reader, state: CommitteeState) -> None:
    signed = reader.var16(max_len=_MAX_HEADER)
    if signed:
        state.signed = SignedHeader.decode(signed)
    number = state.last_round
    present = reader.u8()
    if present > 1:
        raise RemoteProtocolError("a committee state with more than one chosen aggregate")
    if present:
        aggregate, participants = Digest(reader.fixed(32)), Digest(reader.fixed(32))
        state.chosen = ChooseAggregate(number, aggregate, participants, reader.u32())
    for _ in range(reader.u8()):
        server = ServerIndex(reader.u8())
        state.partials[server] = Digest(reader.fixed(32))
    for _ in range(reader.u8()):
        server = ServerIndex(reader.u8())
        record, schedule = Digest(reader.fixed(32)), Digest(reader.fixed(32))
        signature = reader.fixed(HYBRID_SIGNATURE_BYTES)
        state.signatures[server] = SignRecord(number, record, schedule, signature)
    for _ in range(reader.u8()):
        server = ServerIndex(reader.u8())
        state.missed[server] = frozenset(decode_roster(reader.u16()))


def _read_registry(reader: Reader, state: CommitteeState) -> None:
    digest, count = reader.fixed(32), reader.u32()
    changes = [RegistryChange.decode(reader.var16(max_len=_MAX_CHANGE)) for _ in range(count)]
    state.registry.apply(changes)
    if state.registry.digest != digest:
        raise RemoteProtocolError("a committee state whose registry is not the one it names")
    for _ in range(reader.u32()):
        peer = PeerId(reader.fixed(32))
        state.serials[peer] = reader.u64()


def _read_revocations(reader: Reader, state: CommitteeState) -> None:
    """Take the statements as the log did: each is signed, so none is believed unseen."""
    count = reader.u32()
    if count > MAX_REVOCATIONS:
        raise RemoteProtocolError("a committee state with too many revocations")
    for _ in range(count):
        statement = reader.var16(max_len=MAX_STATEMENT_BYTES)
        try:
            revocation = state.revocation_of(statement, ever=True)
        except VerificationError as error:
            raise RemoteProtocolError("a committee state with a forged revocation") from error
        state.revoked[revocation.kind, revocation.target] = statement


def _require_sense(state: CommitteeState) -> None:
    """Refuse what no sequence of commands leads to, as far as the table of phases rests on it."""
    servers = len(state.descriptor.committee)
    named = {*state.kem, *state.partials, *state.signatures, *state.missed}
    header = state.header
    idle = header is None and not (state.chosen or state.partials or state.signatures)
    sound = {
        Phase.IDLE: idle and not state.missed,
        Phase.OPEN: header is not None and state.chosen is None and not state.partials,
        Phase.CHOSEN: header is not None and state.chosen is not None and not state.signatures,
        Phase.REVEALED: header is not None
        and state.chosen is not None
        and set(state.partials) == set(header.roster),
    }[state.phase]
    if not sound or (header is not None and header.round != state.last_round):
        raise RemoteProtocolError("a committee state whose round does not fit its phase")
    if any(server >= servers for server in named) or state.last_final > state.last_round:
        raise RemoteProtocolError("a committee state that contradicts itself")
    if state.registry_version > state.registry.version:
        raise RemoteProtocolError("a committee state ahead of its own registry")


def state_digest(state: CommitteeState) -> Digest:
    """Return a digest of the whole state: equal on servers that applied the same commands."""
    return derive("committee-state", encode_state(state))
