"""Commands for the committee's replicated state, and states brought to where a test begins."""

from __future__ import annotations

import functools
from dataclasses import replace

from hypothesis import strategies as st

from tests.harness.committee import HarnessCommittee, make_identity
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import Outcome, Refused
from zipnet.protocol.command import (
    AbortReason,
    AbortRound,
    AnnounceKem,
    ChooseAggregate,
    Command,
    OpenRound,
    PostPartial,
    RegisterClient,
    RetireClient,
    SealRecord,
    SignRecord,
    sign_command,
)
from zipnet.protocol.header import RoundHeader, sign_header
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, ServerIndex, derive
from zipnet.protocol.record import RECORD_SIGNATURE_USE

__all__ = [
    "AGGREGATE",
    "CLIENTS",
    "DIGESTS",
    "FORK",
    "GROUP",
    "LAX",
    "OTHER",
    "RECORD",
    "STEP",
    "STRICT",
    "any_command",
    "apply",
    "bring",
    "choosing",
    "header_for",
    "miss",
    "opening",
    "posting",
    "record_signature",
    "refused",
    "register",
    "revealed",
    "signed",
    "signing",
    "snapshot",
    "state_of",
]

LAX = HarnessCommittee(max_absent=1)
STRICT = HarnessCommittee(max_absent=0)
GROUP = LAX.descriptor.group
DIGESTS = [derive("test-digest", bytes([i])) for i in range(4)]
AGGREGATE, OTHER, RECORD, FORK = DIGESTS
CLIENTS = [make_identity(f"client-{i}").public for i in range(3)]


def state_of(committee: HarnessCommittee = LAX, *, max_clients: int = 100) -> CommitteeState:
    return CommitteeState(committee.descriptor, max_clients=max_clients)


def signed(command: Command, author: int = 0, committee: HarnessCommittee = LAX) -> bytes:
    identity = committee.identities[author]
    return sign_command(command, ServerIndex(author), committee.descriptor.group, identity)


def apply(state: CommitteeState, command: Command, author: int = 0) -> Outcome:
    committee = STRICT if state.descriptor is STRICT.descriptor else LAX
    return state.apply(signed(command, author, committee))


def header_for(state: CommitteeState, **changes: object) -> RoundHeader:
    made = RoundHeader(
        group=state.descriptor.group,
        round=RoundNumber(state.last_round + 1),
        descriptor_version=1,
        previous_final=state.last_final,
        previous_record=state.last_record,
        schedule=state.schedule,
        registry_version=state.registry.version,
        registry_digest=state.registry.digest,
        roster=tuple(ServerIndex(i) for i in range(3)),
        opener=ServerIndex(0),
        opened_at_ms=5,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def opening(header: RoundHeader, signer: int | None = None) -> OpenRound:
    who = header.opener if signer is None else signer
    return OpenRound(sign_header(header, LAX.identities[who % 3]))


def register(client: int = 0, serial: int = 1) -> RegisterClient:
    identity = CLIENTS[client]
    registration = derive("test-registration", bytes([client, serial]))
    return RegisterClient(identity.peer_id, identity.ed25519, serial, registration)


@functools.cache
def record_signature(author: int, record: Digest) -> bytes:
    return LAX.identities[author].sign(RECORD_SIGNATURE_USE, record)


def signing(
    number: int, author: int, record: Digest = RECORD, schedule: Digest = OTHER
) -> SignRecord:
    return SignRecord(RoundNumber(number), record, schedule, record_signature(author, record))


def choosing(number: int, count: int = 2) -> ChooseAggregate:
    return ChooseAggregate(RoundNumber(number), AGGREGATE, OTHER, count)


def posting(number: int, aggregate: Digest = AGGREGATE) -> PostPartial:
    return PostPartial(RoundNumber(number), aggregate, OTHER)


def bring(phase: Phase, committee: HarnessCommittee = LAX) -> CommitteeState:
    """A state with one client, in a phase of round 1; two record signatures when revealed."""
    state = state_of(committee)
    apply(state, register())
    if phase is Phase.IDLE:
        return state
    apply(state, opening(header_for(state)))
    if phase is Phase.OPEN:
        return state
    apply(state, choosing(1))
    if phase is Phase.CHOSEN:
        return state
    for author in range(3):
        apply(state, posting(1), author)
    for author in range(2):
        apply(state, signing(1, author), author)
    assert state.phase is Phase.REVEALED
    return state


def snapshot(state: CommitteeState) -> tuple[object, ...]:
    plain = {key: value for key, value in vars(state).items() if key not in _NOT_STATE}
    copied = {k: dict(v) if isinstance(v, dict) else v for k, v in plain.items()}
    registry = state.registry
    entries = tuple(registry.entry(i) for i in range(registry.next_index))
    return (tuple(copied.items()), registry.version, registry.digest, entries)


_NOT_STATE = {"descriptor", "registry", "_transitions", "max_clients"}


def revealed(committee: HarnessCommittee = LAX) -> CommitteeState:
    state = bring(Phase.CHOSEN, committee)
    for author in range(3):
        apply(state, posting(1), author)
    return state


def miss(state: CommitteeState, author: int, *missing: int) -> Outcome:
    absent = tuple(ServerIndex(i) for i in missing)
    return apply(state, AbortRound(RoundNumber(1), AbortReason.PARTIAL_WITHHELD, absent), author)


def refused(state: CommitteeState, command: Command, author: int, reason: str) -> None:
    before = snapshot(state)
    assert apply(state, command, author) == Refused(reason)
    assert snapshot(state) == before


def _useful(state: CommitteeState) -> Command:
    number = int(state.last_round)
    match state.phase:
        case Phase.IDLE:
            return opening(header_for(state))
        case Phase.OPEN:
            return choosing(number)
        case Phase.CHOSEN:
            return posting(number)
        case Phase.REVEALED:
            return SealRecord(RoundNumber(number))


def any_command(state: CommitteeState, kind: int, author: int, a: int, b: int) -> Command:
    number = RoundNumber(max(0, state.last_round + a - 1))
    digest = DIGESTS[b]
    if kind >= 9:
        useful = _useful(state)
        signs = isinstance(useful, SealRecord) and kind % 2
        return signing(state.last_round, author, DIGESTS[2 + b // 3]) if signs else useful
    commands: list[Command] = [
        AnnounceKem(a + b, digest),
        register(a, serial=b),
        RetireClient(RegistryIndex(a + b)),
        opening(header_for(state, round=RoundNumber(number + 1)), signer=a),
        ChooseAggregate(number, digest, digest, a + b),
        PostPartial(number, DIGESTS[b % 2], digest),
        signing(number, author, DIGESTS[2 + b % 2], digest),
        SealRecord(number),
        AbortRound(number, AbortReason(1 + b), (ServerIndex(a),)),
    ]
    return commands[kind]


STEP = st.tuples(
    st.integers(0, 15), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.booleans()
)
