"""The HELLO handshake over any connection, ending in a :class:`Session` whose peer is known.

Both sides run it before anything else is accepted (protocol.md §7). Messages and proofs are in
``zipnet.wire.handshake``; requests and pushes afterwards in ``zipnet.transport.rpc``.

Rules:

1. The whole handshake has one deadline; a peer that dawdles is closed.
2. The acceptor's identity must own the certificate the transport saw. The initiator's must, too,
   where it showed a certificate; where it showed none, its signature over the transcript, which
   holds the acceptor's certificate key, binds it to this channel instead.
3. A mismatch is named: ``version``, ``unknown_instance``, ``policy_mismatch``,
   ``identity_mismatch``, ``bad_proof``, ``bad_committee_proof``, and whatever ``admit`` says
   (``not_registered``, ``duplicate_identity``). Both sides raise the same error.
4. ``admit`` is asked last, about proved facts only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from zipnet.errors import (
    AdmissionError,
    LocalProtocolError,
    PolicyMismatchError,
    RemoteProtocolError,
    SlowPeerError,
    TransportError,
    UnknownInstanceError,
    ZipnetError,
)
from zipnet.protocol.committee_secrets import CommitteeSecrets
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, Identity, PublicIdentity
from zipnet.protocol.ids import GroupId, InstanceId, PeerId
from zipnet.transport.bond import Bond, LinkEvidence
from zipnet.transport.rpc import Handler, PeerFacts, Session
from zipnet.wire.frames import CloseCode, Frame, SessionKind
from zipnet.wire.handshake import (
    NONCE_BYTES,
    VERSIONS,
    Hello,
    HelloFacts,
    HelloReply,
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
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from zipnet.ports import Attestor, Connection
    from zipnet.protocol.secret import Secret

__all__ = [
    "Admit",
    "Handler",
    "HelloFacts",
    "PeerFacts",
    "Role",
    "Session",
    "SessionTerms",
    "accept",
    "initiate",
]

Admit = Callable[[HelloFacts], ZipnetError | None]
"""Decides about a proved initiator: None lets it in, an error (returned or raised) refuses it."""


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What this side brings to a handshake.

    Attributes:
        instance_id: The instance (32 bytes) this link is about.
        group_id: The group (32 bytes) this link is about.
        role: What this side is.
        identity: This side's keys; None for a reader only.
        boot_id: 16 random bytes drawn when this process started.
        committee_secret: The committee secret, for servers only; or several, while one takes
            another's place.
        expected_peer: Peer id the acceptor must prove; None accepts the certificate's owner.
        expected_role: Role the acceptor must have; None accepts any.
        limits: Bounds of the session.
        versions: Wire versions this side speaks.
        attestor: Shows and judges evidence; None in a group that asks for none.
        draw: Source of nonces.
    """

    instance_id: InstanceId
    group_id: GroupId
    role: Role
    identity: Identity | None = field(repr=False)
    boot_id: bytes
    committee_secret: Secret | CommitteeSecrets | None = field(default=None, repr=False)
    expected_peer: PeerId | None = None
    expected_role: Role | None = None
    limits: Limits = DEFAULT_LIMITS
    versions: tuple[int, ...] = VERSIONS
    draw: Callable[[int], bytes] = field(default=secrets.token_bytes, repr=False)
    attestor: Attestor | None = field(default=None, repr=False)


async def initiate(connection: Connection, terms: SessionTerms, *, deadline_s: float) -> Session:
    """Introduce this side on a connection it opened; the connection is closed on any failure.

    Raises:
        AdmissionError: When the peer refused or could not prove itself; ``code`` says why.
        UnknownInstanceError: When the peer does not serve this instance.
        PolicyMismatchError: When the peer serves the instance with other parameters.
        DuplicateIdentityError: When the peer already has a live link with this identity.
        RemoteProtocolError: When the peer's bytes are no handshake.
        TransportError: When the link broke or the deadline passed.
    """
    peer, bond = await _within(connection, _Initiator(connection, terms).run(), deadline_s)
    return Session(connection, peer, terms.limits, bond)


async def accept(
    connection: Connection, terms: SessionTerms, admit: Admit, *, deadline_s: float
) -> Session:
    """Let a peer introduce itself; it is refused, and the connection closed, on any failure.

    Args:
        connection: A connection a listener handed out.
        terms: What this side brings; ``identity`` must own the listener's certificate.
        admit: Decides about the initiator once its facts are proved.
        deadline_s: Time for the whole handshake.

    Raises:
        ZipnetError: The children :func:`initiate` names; the peer was told the same reason.
    """
    peer, bond = await _within(connection, _Acceptor(connection, terms, admit).run(), deadline_s)
    return Session(connection, peer, terms.limits, bond)


_Outcome = tuple[PeerFacts, Bond | None]


async def _within(
    connection: Connection, handshake: Awaitable[_Outcome], deadline_s: float
) -> _Outcome:
    """Run one side of the handshake; whatever goes wrong closes the connection with a number."""
    try:
        async with asyncio.timeout(deadline_s):
            return await handshake
    except TimeoutError as error:
        reason = "the handshake took too long"
        await connection.close(code=CloseCode.HANDSHAKE_DEADLINE, reason=reason)
        raise SlowPeerError(reason) from error
    except RemoteProtocolError as error:
        await connection.close(code=error.code, reason=str(error))
        raise
    except TransportError:
        await connection.close()
        raise
    except ZipnetError as error:
        await connection.close(code=CloseCode.REFUSED, reason=error_to_refusal(error).code)
        raise
    except BaseException:  # cancelled, or a bug: never leave a half-open link behind
        await connection.close()
        raise


class _Side:
    """What both sides of the handshake do alike."""

    def __init__(self, connection: Connection, terms: SessionTerms) -> None:
        self.connection = connection
        self.terms = terms
        self.shown: Secret | None = None

    async def send(self, kind: SessionKind, message: Hello | HelloReply | Proof | Welcome) -> None:
        await self.connection.send(Frame(kind, 0, encode_handshake(message)))

    async def receive(self, kind: SessionKind) -> bytes:
        """The payload of the one kind that is due now; a refusal in its place is raised."""
        frame = await self.connection.receive()
        if frame.request_id == 0 and frame.kind == kind:
            return frame.payload
        if frame.request_id == 0 and frame.kind == SessionKind.REFUSAL:
            raise refusal_to_error(decode_handshake(frame.payload, Refusal))
        raise RemoteProtocolError(
            f"frame kind {frame.kind} came where {kind.name} was due",
            code=CloseCode.UNEXPECTED_FRAME,
        )

    def evidence(self, transcript: Transcript) -> LinkEvidence:
        """What this link has to do with evidence."""
        return LinkEvidence(self.terms.attestor, self.terms.draw, transcript)

    def mac(self, transcript: Transcript, side: Side) -> bytes | None:
        """This side's committee proof, where one is due."""
        if not transcript.among_committee:
            return None
        # An acceptor answers with what it was shown: that one is held at the other end as well.
        return committee_mac(self.shown or self._secrets()[0], transcript, side)

    def check_mac(self, transcript: Transcript, side: Side, mac: bytes | None) -> bool:
        """Check the other side's committee proof, where one is due; tells whether it was."""
        if not transcript.among_committee:
            if mac is not None:
                raise RemoteProtocolError("a committee proof came where none was due")
            return False
        self.shown = verify_committee_mac(self._secrets(), transcript, side, mac)
        return True

    def _secrets(self) -> tuple[Secret, ...]:
        held = self.terms.committee_secret
        if isinstance(held, CommitteeSecrets):
            believed = held.believed
        else:
            believed = () if held is None else (held,)
        if not believed:
            raise LocalProtocolError("a server needs the committee secret for its handshake")
        return believed


class _Initiator(_Side):
    """The side that opened the connection."""

    async def run(self) -> _Outcome:
        hello = self._hello()
        await self.send(SessionKind.HELLO, hello)
        reply = decode_handshake(await self.receive(SessionKind.HELLO_REPLY), HelloReply)
        acceptor = PublicIdentity.decode(reply.identity)
        self._check(hello, reply, acceptor)
        transcript = _transcript(self.connection, hello, reply, Side.INITIATOR)
        verify_transcript(acceptor, transcript, Side.ACCEPTOR, reply.signature)
        link = self.evidence(transcript)
        own = None
        if self.terms.identity is not None:
            own = link.view(Side.INITIATOR, self.terms.identity.public, self.terms.boot_id)
            proof = Proof(
                signature=sign_transcript(self.terms.identity, transcript, Side.INITIATOR),
                committee_mac=self.mac(transcript, Side.INITIATOR),
                evidence=await link.show(own),
            )
            await self.send(SessionKind.PROOF, proof)
        welcome = decode_handshake(await self.receive(SessionKind.WELCOME), Welcome)
        proved = self.check_mac(transcript, Side.ACCEPTOR, welcome.committee_mac)
        theirs = link.view(Side.ACCEPTOR, acceptor, reply.boot_id)
        judgement = link.judge(welcome.evidence, theirs)
        facts = PeerFacts(
            peer_id=acceptor.peer_id,
            identity=acceptor,
            role=reply.role,
            boot_id=reply.boot_id,
            remote_address=self.connection.remote_address,
            committee_proved=proved,
            evidence=judgement,
        )
        return facts, link.bond(own, theirs, judgement)

    def _hello(self) -> Hello:
        terms = self.terms
        if (terms.identity is None) != (terms.role is Role.READER):
            raise LocalProtocolError("every role but a reader needs an identity")
        return Hello(
            versions=list(terms.versions),
            instance_id=terms.instance_id,
            group_id=terms.group_id,
            role=terms.role,
            identity=terms.identity.public.encode() if terms.identity else None,
            nonce=terms.draw(NONCE_BYTES),
            boot_id=terms.boot_id,
        )

    def _check(self, hello: Hello, reply: HelloReply, acceptor: PublicIdentity) -> None:
        if reply.version not in hello.versions:
            raise AdmissionError("the peer chose a version we do not speak", code="version")
        if acceptor.ed25519 != self.connection.peer_certificate.public_key:
            raise AdmissionError(
                "the peer's identity does not own its certificate", code="identity_mismatch"
            )
        if self.terms.expected_peer not in (None, acceptor.peer_id):
            raise AdmissionError("the peer is not the expected one", code="identity_mismatch")
        if self.terms.expected_role not in (None, reply.role):
            raise AdmissionError("the peer has not the expected role", code="not_registered")


class _Acceptor(_Side):
    """The side that listened."""

    def __init__(self, connection: Connection, terms: SessionTerms, admit: Admit) -> None:
        super().__init__(connection, terms)
        self.admit = admit

    async def run(self) -> _Outcome:
        hello = decode_handshake(await self.receive(SessionKind.HELLO), Hello)
        try:
            return await self._answer(hello)
        except (RemoteProtocolError, TransportError, LocalProtocolError):
            raise
        except ZipnetError as error:
            refusal = encode_handshake(error_to_refusal(error))
            await self.connection.send(Frame(SessionKind.REFUSAL, 0, refusal))
            raise

    async def _answer(self, hello: Hello) -> _Outcome:
        initiator = self._check(hello)
        transcript = await self._reply(hello)
        proved = False
        judgement = None
        link = self.evidence(transcript)
        theirs = link.view(Side.INITIATOR, initiator, hello.boot_id)
        if initiator is not None:
            proof = decode_handshake(await self.receive(SessionKind.PROOF), Proof)
            verify_transcript(initiator, transcript, Side.INITIATOR, proof.signature)
            proved = self.check_mac(transcript, Side.INITIATOR, proof.committee_mac)
            judgement = link.judge(proof.evidence, theirs)
        facts = HelloFacts(
            role=hello.role,
            peer_id=initiator.peer_id if initiator else None,
            identity=initiator,
            boot_id=hello.boot_id,
            certificate_key=self.connection.peer_certificate.public_key,
            remote_address=self.connection.remote_address,
            committee_proved=proved,
            evidence_until=None if judgement is None else judgement.not_after,
        )
        refusal = self.admit(facts)
        if refusal is not None:
            raise refusal
        assert self.terms.identity is not None, "its reply was signed"
        own = link.view(Side.ACCEPTOR, self.terms.identity.public, self.terms.boot_id)
        welcome = Welcome(
            committee_mac=self.mac(transcript, Side.ACCEPTOR), evidence=await link.show(own)
        )
        await self.send(SessionKind.WELCOME, welcome)
        peer = PeerFacts(
            peer_id=facts.peer_id,
            identity=facts.identity,
            role=facts.role,
            boot_id=facts.boot_id,
            remote_address=facts.remote_address,
            committee_proved=proved,
            evidence=judgement,
        )
        return peer, link.bond(own, theirs, judgement)

    def _check(self, hello: Hello) -> PublicIdentity | None:
        """The initiator's claimed identity, once everything that needs no proof is in order."""
        if not set(hello.versions) & set(self.terms.versions):
            raise AdmissionError("no wire version in common", code="version")
        if hello.instance_id != self.terms.instance_id:
            raise UnknownInstanceError("this node does not serve that instance")
        if hello.group_id != self.terms.group_id:
            raise PolicyMismatchError(
                "same instance name, but secret, parameters or attestation policy differ"
            )
        if (hello.identity is None) != (hello.role is Role.READER):
            raise RemoteProtocolError("a reader has no identity, everybody else has one")
        certificate_key = self.connection.peer_certificate.public_key
        if hello.identity is None:
            return None
        initiator = PublicIdentity.decode(hello.identity)
        if certificate_key not in (None, initiator.ed25519):
            raise AdmissionError(
                "the identity does not own the certificate", code="identity_mismatch"
            )
        return initiator

    async def _reply(self, hello: Hello) -> Transcript:
        identity = self.terms.identity
        if identity is None:
            raise LocalProtocolError("an acceptor needs an identity")
        reply = HelloReply(
            version=max(set(hello.versions) & set(self.terms.versions)),
            role=self.terms.role,
            identity=identity.public.encode(),
            nonce=self.terms.draw(NONCE_BYTES),
            boot_id=self.terms.boot_id,
            signature=bytes(HYBRID_SIGNATURE_BYTES),
        )
        transcript = _transcript(self.connection, hello, reply, Side.ACCEPTOR)
        signature = sign_transcript(identity, transcript, Side.ACCEPTOR)
        await self.send(
            SessionKind.HELLO_REPLY, msgspec.structs.replace(reply, signature=signature)
        )
        return transcript


def _transcript(connection: Connection, hello: Hello, reply: HelloReply, side: Side) -> Transcript:
    """What both sides saw; the certificate keys are this side's own view of the channel."""
    own, other = connection.local_certificate, connection.peer_certificate
    initiator, acceptor = (own, other) if side is Side.INITIATOR else (other, own)
    if acceptor.public_key is None:
        raise LocalProtocolError("a handshake needs a listener with a certificate")
    return Transcript(
        versions=tuple(hello.versions),
        version=reply.version,
        instance_id=InstanceId(hello.instance_id),
        group_id=GroupId(hello.group_id),
        initiator_role=hello.role,
        acceptor_role=reply.role,
        initiator_peer=PublicIdentity.decode(hello.identity).peer_id if hello.identity else None,
        acceptor_peer=PublicIdentity.decode(reply.identity).peer_id,
        initiator_nonce=hello.nonce,
        acceptor_nonce=reply.nonce,
        initiator_boot=hello.boot_id,
        acceptor_boot=reply.boot_id,
        acceptor_key=acceptor.public_key,
        initiator_key=initiator.public_key,
    )
