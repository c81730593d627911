"""Who is refused a bond, and why: every attack of protocol.md §7 over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from tdx.emulator import Emulator
from tdx.emulator.authority import PckValues
from tdx.emulator.documents import make_bundle, tcb_info
from tdx.emulator.quotes import TdFields
from tdx.policy import Policy
from tests.harness.attested import (
    COMMITTEE,
    PATIENCE_S,
    Clock,
    Host,
    Machine,
    attestor_of,
    authority,
    enter,
    group_terms,
    image,
    listening,
    recording,
    showing,
)
from tests.harness.committee import make_identity
from zipnet.admission import Evidence, bind, decode_evidence, encode_evidence
from zipnet.errors import AdmissionError, ZipnetError
from zipnet.transport.session import Role

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.attested import Listening
    from zipnet.admission import EvidenceView
    from zipnet.attestation import PlatformAttestor
    from zipnet.ports import Attestor
    from zipnet.protocol.attestation import AttestationTerms
    from zipnet.protocol.identity import Identity

FIRST, SECOND, THIRD = COMMITTEE.identities[:3]
SERVER_IMAGE, CLIENT_IMAGE, AGGREGATOR_IMAGE = map(image, ("committee", "client", "aggregator"))
DEBUG = 1


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def machine(mrtd: bytes, **other: object) -> Machine:
    return Machine(TdFields(mrtd=mrtd, **other))  # type: ignore[arg-type]


def server(host: Host, terms: AttestationTerms | None = None) -> PlatformAttestor:
    return attestor_of(host, terms or group_terms(), machine(SERVER_IMAGE))


async def refused(
    at: Listening, identity: Identity, role: Role, attestor: Attestor | None
) -> AdmissionError:
    """The error a peer meets that is not let in."""
    with pytest.raises(AdmissionError) as error:
        await enter(at, identity, role, attestor)
    return error.value


async def require_refused(
    at: Listening, identity: Identity, role: Role, attestor: Attestor | None, *, code: str
) -> None:
    """The peer is told the reason and the node counts it; no session comes to be."""
    error = await refused(at, identity, role, attestor)
    assert error.code == code
    await at.until_rejected(code)
    assert at.node.sessions() == ()
    assert at.frames == []


# --- who is let in ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "identity", "runs", "transport"),
    [
        (Role.SERVER, SECOND, SERVER_IMAGE, "tls"),
        (Role.AGGREGATOR, COMMITTEE.aggregators["leaf"], AGGREGATOR_IMAGE, "tls"),
        (Role.AGGREGATOR, COMMITTEE.aggregators["leaf"], AGGREGATOR_IMAGE, "quic"),
        (Role.CLIENT, make_identity("anna"), CLIENT_IMAGE, "tls"),
        (Role.CLIENT, make_identity("anna"), CLIENT_IMAGE, "quic"),
    ],
    ids=["server-tls", "aggregator-tls", "aggregator-quic", "client-tls", "client-quic"],
)
async def test_both_sides_of_a_bond_hold_judged_evidence(
    host: Host, role: Role, identity: Identity, runs: bytes, transport: str
) -> None:
    async with listening(server(host)) as at:
        own = attestor_of(host, group_terms(), machine(runs))
        session = await enter(at, identity, role, own, transport=transport)
        theirs = session.peer.evidence
        (accepted,) = at.node.sessions(role)
        ours = accepted.peer.evidence
        assert theirs is not None
        assert ours is not None
        assert theirs.verdict.report.mrtd == SERVER_IMAGE
        assert ours.verdict.report.mrtd == runs
        await session.close()


async def test_a_server_that_shows_no_certificate_is_refused(host: Host) -> None:
    """A challenge covers both certificates; QUIC does not ask the dialling side for one."""
    async with listening(server(host)) as at:
        with pytest.raises(AdmissionError, match="certificate") as error:
            await enter(at, SECOND, Role.SERVER, server(host), transport="quic")
        assert error.value.code == "identity_mismatch"


async def test_a_reader_shows_nothing_and_is_let_in(host: Host) -> None:
    async with listening(server(host)) as at:
        from tests.harness.fake_server import terms_of, tls_of
        from zipnet.transport.session import initiate

        connection = await tls_of(COMMITTEE, None).connect(
            "127.0.0.1", at.port, expected_key=FIRST.public.ed25519, timeout_s=PATIENCE_S
        )
        terms = replace(terms_of(COMMITTEE, None, Role.READER), attestor=server(host))
        session = await initiate(connection, terms, deadline_s=PATIENCE_S)
        assert session.peer.evidence is None
        await session.close()


# --- what a platform is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "identity"),
    [
        (Role.SERVER, SECOND),
        (Role.AGGREGATOR, COMMITTEE.aggregators["leaf"]),
        (Role.CLIENT, make_identity("anna")),
    ],
    ids=["server", "aggregator", "client"],
)
@pytest.mark.requirement("Z9")
async def test_a_wrong_mrtd_is_refused(host: Host, role: Role, identity: Identity) -> None:
    async with listening(server(host)) as at:
        forged = attestor_of(host, group_terms(), machine(image("forged")))
        await require_refused(at, identity, role, forged, code="tdx_mrtd")


async def test_the_image_of_another_role_is_refused(host: Host) -> None:
    async with listening(server(host)) as at:
        client = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
        await require_refused(at, SECOND, Role.SERVER, client, code="tdx_mrtd")


async def test_a_debug_td_is_refused(host: Host) -> None:
    async with listening(server(host)) as at:
        debug = machine(SERVER_IMAGE, td_attributes=(1 << 28) | DEBUG)
        await require_refused(
            at, SECOND, Role.SERVER, attestor_of(host, group_terms(), debug), code="tdx_td_debug"
        )


async def test_expired_collateral_is_refused(host: Host) -> None:
    recipe = authority().recipe()
    day = 86_400
    lapsed = replace(
        recipe, tcb_info=tcb_info(authority().now - 60 * day, authority().now - 30 * day)
    )
    bundle = make_bundle(lapsed)
    async with listening(server(host)) as at:
        stale = attestor_of(
            host,
            group_terms(),
            machine(SERVER_IMAGE),
            collateral=host.collateral(bundle.to_json()),
        )
        await require_refused(at, SECOND, Role.SERVER, stale, code="tdx_tcb_info_time")


async def test_the_quote_of_another_authority_is_refused(host: Host) -> None:
    other = Emulator(now=authority().now)
    async with listening(server(host)) as at:
        foreign = attestor_of(
            host,
            group_terms(),
            Machine(TdFields(mrtd=SERVER_IMAGE), other),
            collateral=host.collateral(other.bundle().to_json()),
        )
        await require_refused(at, SECOND, Role.SERVER, foreign, code="tdx_root_pin")


async def test_a_second_identity_on_one_machine_is_refused_where_machines_count(host: Host) -> None:
    policy = replace(Policy().require_mrtd(SERVER_IMAGE), one_identity_per_platform=True)
    terms = group_terms(committee=policy)
    async with listening(server(host, terms)) as at:
        shared = machine(SERVER_IMAGE)
        first = await enter(at, SECOND, Role.SERVER, attestor_of(host, terms, shared))
        error = await refused(at, THIRD, Role.SERVER, attestor_of(host, terms, shared))
        assert error.code == "tdx_platform_reused"
        other = Machine(TdFields(mrtd=SERVER_IMAGE), authority().another_platform(_another()))
        second = await enter(at, THIRD, Role.SERVER, attestor_of(host, terms, other))
        await first.close()
        await second.close()


def _another() -> PckValues:
    values = PckValues()
    return replace(values, ppid=bytes(16), platform_instance_id=b"\x77" * 16)


# --- what evidence is bound to -----------------------------------------------------------------


async def test_no_evidence_is_refused(host: Host) -> None:
    async with listening(server(host)) as at:
        nothing = showing(server(host), lambda _view: None)
        await require_refused(at, SECOND, Role.SERVER, nothing, code="evidence_missing")


@pytest.mark.parametrize("data", [b"", b"\x80", b"x" * 1000], ids=["empty", "map", "noise"])
async def test_what_is_no_evidence_is_refused(host: Host, data: bytes) -> None:
    async with listening(server(host)) as at:
        noise = showing(server(host), lambda _view: data)
        await require_refused(at, SECOND, Role.SERVER, noise, code="evidence_malformed")


async def test_a_lapsed_ticket_is_refused(host: Host) -> None:
    clock = Clock(-3600)
    anna = make_identity("anna")
    async with listening(server(host)) as at:
        old = attestor_of(host, group_terms(), machine(CLIENT_IMAGE), wall=clock)
        # Its clock is an hour behind, so what it shows ended fifty minutes ago.
        await require_refused(at, anna, Role.CLIENT, old, code="evidence_lapsed")


async def test_a_ticket_replayed_by_a_later_process_is_refused(host: Host) -> None:
    anna = make_identity("anna")
    honest = recording(attestor_of(host, group_terms(), machine(CLIENT_IMAGE)))
    async with listening(server(host)) as at:
        session = await enter(at, anna, Role.CLIENT, honest)
        await session.close()
        thief = showing(honest, lambda _view: honest.shown[0])
        error = await refused(at, anna, Role.CLIENT, thief)
        assert error.code == "evidence_replayed"
        await at.until_rejected("evidence_replayed")


async def test_the_ticket_of_somebody_else_is_refused(host: Host) -> None:
    """The right quote behind another TLS key."""
    honest = recording(attestor_of(host, group_terms(), machine(CLIENT_IMAGE)))
    async with listening(server(host)) as at:
        session = await enter(at, make_identity("anna"), Role.CLIENT, honest)
        await session.close()
        relay = showing(honest, lambda _view: honest.shown[0])
        error = await refused(at, make_identity("mallory"), Role.CLIENT, relay)
        assert error.code == "evidence_relayed"


async def test_a_relayed_quote_that_claims_to_be_ones_own_is_refused(host: Host) -> None:
    honest = recording(attestor_of(host, group_terms(), machine(CLIENT_IMAGE)))
    mallory = make_identity("mallory")

    def relabelled(view: EvidenceView) -> bytes:
        stolen = decode_evidence(honest.shown[0])
        return encode_evidence(
            view,
            quote=stolen.quote,
            collateral=stolen.collateral,
            not_before=stolen.not_before,
            not_after=stolen.not_after,
            boot_id=view.boot_id or b"",
        )

    async with listening(server(host)) as at:
        session = await enter(at, make_identity("anna"), Role.CLIENT, honest)
        await session.close()
        await require_refused(
            at, mallory, Role.CLIENT, showing(honest, relabelled), code="evidence_unbound"
        )


async def test_a_stretched_window_is_refused(host: Host) -> None:
    honest = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
    forged: list[bytes] = []

    async with listening(server(host)) as at:
        anna = make_identity("anna")
        first = recording(honest)
        session = await enter(at, anna, Role.CLIENT, first)
        await session.close()

        def stretched(view: EvidenceView) -> bytes:
            shown = decode_evidence(first.shown[0])
            longer = msgspec.structs.replace(
                shown, not_after=shown.not_after + 30, boot_id=view.boot_id or b""
            )
            forged.append(msgspec.msgpack.encode(longer))
            return forged[-1]

        error = await refused(at, anna, Role.CLIENT, showing(honest, stretched))
        assert error.code == "evidence_lapsed"  # no window is that long
        assert isinstance(decode_evidence(forged[0]), Evidence)


async def test_a_challenge_answered_with_a_ticket_is_refused(host: Host) -> None:
    honest = server(host)

    def ticket(view: EvidenceView) -> bytes:
        return made[0] if view.challenge is not None else b""

    made: list[bytes] = []
    async with listening(server(host)) as at:
        own = recording(honest)
        first = await enter(at, SECOND, Role.SERVER, own)
        await first.close()
        shown = decode_evidence(own.shown[0])
        plain = msgspec.structs.replace(shown, direction=None, nonce=None)
        made.append(msgspec.msgpack.encode(plain))
        error = await refused(at, SECOND, Role.SERVER, showing(honest, ticket))
        assert error.code == "evidence_kind"


async def test_a_reflected_challenge_is_refused(host: Host) -> None:
    """What the node itself showed as the answering side comes back as the asking side's."""
    own = recording(server(host))
    async with listening(own) as at:
        honest = await enter(at, SECOND, Role.SERVER, server(host))
        await honest.close()
        (reflected,) = own.shown
        mirror = showing(server(host), lambda _view: reflected)
        await require_refused_later(at, THIRD, mirror, code="evidence_reflected")


async def test_the_answer_to_an_earlier_challenge_is_refused(host: Host) -> None:
    own = recording(server(host))
    async with listening(server(host)) as at:
        honest = await enter(at, SECOND, Role.SERVER, own)
        await honest.close()
        again = showing(server(host), lambda _view: own.shown[0])
        await require_refused_later(at, SECOND, again, code="evidence_replayed")


async def test_a_challenge_relayed_to_a_genuine_machine_is_refused(host: Host) -> None:
    """The genuine machine answers for its own key, on its own link: it vouches for nobody else."""
    genuine = server(host)

    class Cuckoo(showing):
        """Has a genuine machine answer the very nonce it was asked, as that machine would."""

        async def show(self, view: EvidenceView) -> bytes:
            assert view.challenge is not None
            elsewhere = replace(
                view,
                identity=THIRD.public,
                challenge=replace(view.challenge, attester_key=THIRD.public.ed25519),
            )
            return await genuine.show(elsewhere)

    async with listening(server(host)) as at:
        cuckoo = Cuckoo(server(host), lambda _view: None)
        await require_refused(at, SECOND, Role.SERVER, cuckoo, code="evidence_relayed")


async def require_refused_later(
    at: Listening, identity: Identity, attestor: Attestor, *, code: str
) -> None:
    error = await refused(at, identity, Role.SERVER, attestor)
    assert error.code == code
    await at.until_rejected(code)


def test_every_field_of_a_binding_changes_the_report_data(host: Host) -> None:
    """Two views that differ anywhere never share a quote."""
    from zipnet.admission import ChallengeView, EvidenceView
    from zipnet.wire.handshake import Side

    challenge = ChallengeView(b"n" * 32, b"t" * 32, b"a" * 32, b"v" * 32, Side.INITIATOR)
    view = EvidenceView(
        COMMITTEE.descriptor.group, Role.SERVER, FIRST.public, (b"k",), None, challenge
    )
    views = [
        view,
        replace(view, role=Role.AGGREGATOR),
        replace(view, identity=SECOND.public),
        replace(view, extra_keys=()),
        replace(view, extra_keys=(b"k", b"")),
        replace(view, challenge=None),
        replace(view, challenge=replace(challenge, nonce=b"m" * 32)),
        replace(view, challenge=replace(challenge, transcript=b"u" * 32)),
        replace(view, challenge=replace(challenge, attester_key=b"b" * 32)),
        replace(view, challenge=replace(challenge, verifier_key=b"w" * 32)),
        replace(view, challenge=replace(challenge, attester_side=Side.ACCEPTOR)),
    ]
    windows = [(1, 2, b"b" * 32), (0, 2, b"b" * 32), (1, 3, b"b" * 32), (1, 2, b"c" * 32)]
    made = {
        bind(one, not_before=start, not_after=end, boot_id=boot).report_data()
        for one in views
        for start, end, boot in windows
    }
    assert len(made) == len(views) * len(windows)
    assert host.folder.is_dir()


# --- the client's side -------------------------------------------------------------------------


@pytest.mark.requirement("Z3")
async def test_a_publisher_sends_nothing_to_a_committee_that_runs_another_image(
    host: Host,
) -> None:
    forged = attestor_of(host, group_terms(), machine(image("forged")))
    async with listening(forged) as at:
        anna = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
        with pytest.raises(ZipnetError) as error:
            await enter(at, make_identity("anna"), Role.CLIENT, anna)
        assert isinstance(error.value, AdmissionError)
        assert error.value.code == "tdx_mrtd"
        async with asyncio.timeout(PATIENCE_S):
            while at.node.sessions():  # noqa: ASYNC110 - the node tells nobody about it
                await asyncio.sleep(0.01)
        assert at.frames == []
