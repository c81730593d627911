"""The bond of a session: evidence on both sides, kept fresh for as long as the link lives.

protocol.md §7. In the handshake :class:`LinkEvidence` says what each side's evidence is bound to,
and judges it. From then on a :class:`Bond` is kept: the side that judges asks
again at two thirds of its life, and whenever what it demands has changed.

Rules:

1. A bond drops when the peer's evidence lapses unrenewed, or the moment fresh evidence is refused.
2. A peer that cannot answer just now is asked again until its evidence lapses.
3. Waits follow the wall clock in short steps, since that is what evidence is judged by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from zipnet.admission import ChallengeView, EvidenceView, boot_id_of, evidence_due
from zipnet.errors import AdmissionError, RemoteProtocolError, TransportError, ZipnetError
from zipnet.wire.handshake import NONCE_BYTES, Attest, Side, decode_handshake, encode_handshake

if TYPE_CHECKING:
    from zipnet.admission import Judgement
    from zipnet.ports import Attestor
    from zipnet.protocol.identity import PublicIdentity
    from zipnet.wire.handshake import Transcript

__all__ = ["Bond", "LinkEvidence"]

_STEP_S = 5.0
_AGAIN_S = 1.0

Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends a question for evidence to the peer and returns the evidence it answered with."""


@dataclass(frozen=True, slots=True)
class LinkEvidence:
    """What one handshake has to do with evidence.

    Attributes:
        attestor: Shows and judges; None in a group that asks for nothing.
        draw: Source of nonces.
        transcript: What both sides signed.
    """

    attestor: Attestor | None
    draw: Callable[[int], bytes]
    transcript: Transcript

    def view(
        self, attester: Side, identity: PublicIdentity | None, boot_id: bytes
    ) -> EvidenceView | None:
        """Return what one side's evidence is bound to; None where it shows none."""
        if self.attestor is None or identity is None:
            return None
        transcript = self.transcript
        roles = (transcript.initiator_role, transcript.acceptor_role)
        role, other = roles if attester is Side.INITIATOR else roles[::-1]
        if evidence_due(self.attestor.terms, role, other) is None:
            return None
        return EvidenceView(
            group=transcript.group_id,
            role=role,
            identity=identity,
            boot_id=boot_id_of(boot_id),
            challenge=_challenge(transcript, attester) if transcript.among_committee else None,
        )

    async def show(self, view: EvidenceView | None) -> bytes | None:
        """Return this side's evidence, where it is due.

        Raises:
            AdmissionError: When this machine cannot make any.
        """
        if view is None or self.attestor is None:
            return None
        return await self.attestor.show(view)

    def judge(self, evidence: bytes | None, view: EvidenceView | None) -> Judgement | None:
        """Judge the other side's evidence, where it is due.

        Raises:
            AdmissionError: When it is refused.
            RemoteProtocolError: When it came and was not due.
        """
        if view is None or self.attestor is None:
            if evidence is not None:
                raise RemoteProtocolError("evidence came where none was due")
            return None
        return self.attestor.judge(evidence, view)

    def bond(
        self, own: EvidenceView | None, peer: EvidenceView | None, judgement: Judgement | None
    ) -> Bond | None:
        """Return what the session will do about evidence; None where it has nothing to do."""
        if self.attestor is None or (own is None and peer is None):
            return None
        return Bond(self.attestor, self.draw, own, peer, judgement)


def _challenge(transcript: Transcript, attester: Side) -> ChallengeView:
    """What a server's evidence is bound to on this one link, in this one direction."""
    initiator_key = transcript.initiator_key
    if initiator_key is None:
        raise AdmissionError("a server shows a certificate", code="identity_mismatch")
    keys = (initiator_key, transcript.acceptor_key)
    nonces = (transcript.acceptor_nonce, transcript.initiator_nonce)
    at = 0 if attester is Side.INITIATOR else 1
    return ChallengeView(
        nonce=nonces[at],
        transcript=sha256(transcript.encode()).digest(),
        attester_key=keys[at],
        verifier_key=keys[1 - at],
        attester_side=attester,
    )


@dataclass(slots=True)
class Bond:
    """What one session has to do with evidence.

    Attributes:
        attestor: Shows and judges.
        draw: Source of nonces.
        own: What this side's evidence is bound to; None where it shows none.
        peer: What the peer's evidence must be bound to; None where it shows none.
        judgement: The peer's evidence as last judged; None where it shows none.
    """

    attestor: Attestor
    draw: Callable[[int], bytes]
    own: EvidenceView | None
    peer: EvidenceView | None
    judgement: Judgement | None
    _answering: bool = False

    async def answer(self, payload: bytes) -> bytes:
        """Answer the peer's question for fresh evidence.

        Raises:
            RemoteProtocolError: When the question is malformed or none was due.
            AdmissionError: When this machine cannot make evidence now, or is making some already:
                a quote may cost the host a while, and nobody needs two at once.
        """
        asked = decode_handshake(payload, Attest)
        if self.own is None:
            raise RemoteProtocolError("evidence was asked for where none is due")
        view = _challenged(self.own, asked.nonce)
        if self._answering:
            raise AdmissionError("evidence is being made already", code="overloaded")
        self._answering = True
        try:
            return await self.attestor.show(view)
        finally:
            self._answering = False

    async def keep(self, ask: Ask) -> AdmissionError:
        """Keep the peer's evidence fresh; returns why the bond dropped."""
        assert self.judgement is not None, "only a bond that judges is kept"
        while True:
            await self._until_due()
            try:
                await self._renew(ask)
            except AdmissionError as error:
                return error
            except (TransportError, RemoteProtocolError):
                if self.attestor.now() > self.judgement.not_after:
                    return AdmissionError(
                        "the peer's evidence was not renewed in time", code="evidence_lapsed"
                    )
                await asyncio.sleep(_AGAIN_S)

    async def _until_due(self) -> None:
        assert self.judgement is not None
        changed = asyncio.ensure_future(self.attestor.wait_changed())
        try:
            while (left_s := self.judgement.renew_at - self.attestor.now()) > 0:
                done, _ = await asyncio.wait({changed}, timeout=min(left_s, _STEP_S))
                if done:
                    return
        finally:
            changed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changed

    async def _renew(self, ask: Ask) -> None:
        """Ask once and judge the answer.

        Raises:
            AdmissionError: When the fresh evidence is refused.
            TransportError: When the peer gave none.
        """
        assert self.peer is not None
        nonce = None if self.peer.challenge is None else self.draw(NONCE_BYTES)
        try:
            shown = await ask(encode_handshake(Attest(nonce=nonce)))
        except ZipnetError as error:  # refused, or the link's own trouble: it has until it lapses
            raise TransportError(str(error)) from error
        self.judgement = self.attestor.judge(shown, _challenged(self.peer, nonce))


def _challenged(view: EvidenceView, nonce: bytes | None) -> EvidenceView:
    challenge = view.challenge
    if (challenge is None) != (nonce is None):
        raise RemoteProtocolError("servers ask each other with a nonce, nobody else does")
    if challenge is None or nonce is None:
        return view
    return replace(view, challenge=replace(challenge, nonce=nonce))
