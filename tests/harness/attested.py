"""Attested parties over real sockets: emulated machines, their attestors, and dishonest ones.

Machines are of one emulated authority, made once for a test session. What a party shows is a real
quote with real collateral; only what the quote says differs from party to party.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha384
from types import MappingProxyType
from typing import TYPE_CHECKING

from tdx.emulator import Emulator
from tdx.policy import Policy
from tests.harness.committee import HarnessCommittee
from tests.harness.fake_server import new_metrics, quic_of, terms_of, tls_of
from zipnet.attestation import PlatformAttestor, PlatformConfig
from zipnet.node.listen import NodeListener
from zipnet.protocol.attestation import AttestationMode, AttestationTerms, Gate, make_terms
from zipnet.protocol.secret import Secret
from zipnet.transport.session import Role, Session, initiate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tdx.emulator.quotes import TdFields
    from zipnet.admission import EvidenceView, Judgement
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Attestor, Transport
    from zipnet.protocol.identity import Identity
    from zipnet.wire.frames import Frame

__all__ = [
    "COMMITTEE",
    "PATIENCE_S",
    "Clock",
    "Host",
    "Machine",
    "attestor_of",
    "authority",
    "enter",
    "group_terms",
    "image",
    "listening",
    "recording",
    "showing",
]

PATIENCE_S = 20.0
COMMITTEE = HarnessCommittee(aggregators={"root": None, "leaf": "root"})
_SECRET = b"\x5a" * 32


@cache
def authority() -> Emulator:
    """Return the emulated Intel of this test session."""
    return Emulator(now=int(time.time()))


def image(name: str) -> bytes:
    """Return the MRTD of an image."""
    return sha384(name.encode()).digest()


def group_terms(*, lifetime_s: int = 600, **policies: Policy) -> AttestationTerms:
    """Return terms that gate everybody, each by the image of its role unless told otherwise."""
    asked = {gate: Policy().require_mrtd(image(gate.value)) for gate in Gate}
    asked |= {Gate(name): policy for name, policy in policies.items()}
    return make_terms(
        AttestationMode.EMULATED,
        root_der=authority().root_der,
        policies=MappingProxyType(asked),
        lifetime_s=lifetime_s,
    )


@dataclass
class Clock:
    """Wall time that can be moved.

    Attributes:
        offset_s: How far it is ahead of this machine's.
    """

    offset_s: float = 0.0

    def __call__(self) -> float:
        """Unix seconds."""
        return time.time() + self.offset_s


@dataclass
class Machine:
    """A source of quotes: one emulated machine that runs one image.

    Attributes:
        td: What its quotes say besides the report data.
        emulator: The platform.
        quotes: How many it has made.
        broken: Whether it fails to make any.
    """

    td: TdFields
    emulator: Emulator = field(default_factory=authority)
    quotes: int = 0
    broken: bool = False

    def quote(self, report_data: bytes) -> bytes:
        """Make a quote."""
        from tdx.errors import GuestError

        if self.broken:
            raise GuestError("the emulated machine is broken")
        self.quotes += 1
        return self.emulator.quote(report_data, td=self.td)


@dataclass
class Host:
    """Where attestors of a test keep their files."""

    folder: Path

    def collateral(self, text: str | None = None) -> Path:
        """Write a bundle of collateral, by default the authority's current one."""
        path = self.folder / f"collateral-{os.urandom(4).hex()}.json"
        path.write_text(authority().bundle().to_json() if text is None else text)
        return path


def attestor_of(
    host: Host,
    terms: AttestationTerms,
    machine: Machine | None,
    *,
    wall: Callable[[], float] = time.time,
    policy: Path | None = None,
    collateral: Path | None = None,
) -> PlatformAttestor:
    """Return the shipped attestor over an emulated machine."""
    return PlatformAttestor(
        terms,
        PlatformConfig(collateral=collateral or host.collateral(), policy=policy),
        boot_id=os.urandom(16),
        wall=wall,
        source=machine,
    )


class showing:  # noqa: N801 - reads as a phrase: showing(honest, what=stolen)
    """An attestor that judges honestly and shows whatever it is given: an attacker's."""

    def __init__(self, honest: Attestor, what: Callable[[EvidenceView], bytes | None]) -> None:
        self._honest = honest
        self._what = what

    @property
    def terms(self) -> AttestationTerms:
        return self._honest.terms

    def now(self) -> int:
        return self._honest.now()

    async def show(self, view: EvidenceView) -> bytes:
        return self._what(view)  # type: ignore[return-value] # an attacker keeps to no type

    def judge(self, data: bytes | None, view: EvidenceView, *, now: int | None = None) -> Judgement:
        return self._honest.judge(data, view, now=now)

    async def wait_changed(self) -> None:
        await self._honest.wait_changed()


class recording(showing):  # noqa: N801 - as above
    """An honest attestor whose evidence somebody keeps a copy of."""

    def __init__(self, honest: Attestor) -> None:
        super().__init__(honest, lambda _view: None)
        self.shown: list[bytes] = []

    async def show(self, view: EvidenceView) -> bytes:
        made = await self._honest.show(view)
        self.shown.append(made)
        return made


@dataclass
class Listening:
    """A node that listens, and what it counted."""

    port: int
    metrics: NodeMetrics
    node: NodeListener
    identity: Identity
    frames: list[Frame] = field(default_factory=list)

    def rejected(self, reason: str) -> float:
        """How often somebody was refused for a reason."""
        value = self.metrics.registry.get_sample_value(
            "zipnet_rejected_total",
            {"zipnet_instance": "harness.test", "role": "server", "reason": reason},
        )
        return value or 0.0

    async def until_rejected(self, reason: str) -> None:
        """Return once one refusal for a reason is counted: the peer may hear of it first."""
        async with asyncio.timeout(PATIENCE_S):
            while self.rejected(reason) != 1:  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(
    attestor: Attestor, *, identity: Identity | None = None, role: Role = Role.SERVER
) -> AsyncIterator[Listening]:
    """Listen as a node of the committee on both transports; frames that come are kept."""
    own = COMMITTEE.identities[0] if identity is None else identity
    metrics = new_metrics()
    terms = replace(
        terms_of(COMMITTEE, own, role),
        attestor=attestor,
        committee_secret=Secret(_SECRET) if role is Role.SERVER else None,
    )

    async def serve(session: Session) -> None:
        async def keep(frame: Frame) -> Frame | None:
            found.frames.append(frame)
            return None

        await session.serve(keep)

    node = NodeListener(
        terms=terms,
        descriptor=COMMITTEE.descriptor,
        handlers=dict.fromkeys(Role, serve),
        metrics=metrics,
    )
    transports = [quic_of(COMMITTEE, own), tls_of(COMMITTEE, own)]
    port = await node.start("127.0.0.1", 0, transports)
    found = Listening(port, metrics, node, own)
    try:
        yield found
    finally:
        await node.close()


async def enter(
    at: Listening,
    identity: Identity,
    role: Role,
    attestor: Attestor | None,
    *,
    transport: str = "tls",
) -> Session:
    """Connect and shake hands; the caller serves or closes the session."""
    made: Transport
    shown = identity if role in (Role.SERVER, Role.AGGREGATOR) else None
    if transport == "tls" or shown is None:
        made = tls_of(COMMITTEE, shown)
    else:
        made = quic_of(COMMITTEE, shown)
    if transport == "quic" and shown is None:
        from zipnet.sdk.links import client_transport

        made = client_transport("quic", COMMITTEE.descriptor)
    terms = replace(
        terms_of(COMMITTEE, identity, role),
        attestor=attestor,
        committee_secret=Secret(_SECRET) if role is Role.SERVER else None,
    )
    async with asyncio.timeout(PATIENCE_S):
        connection = await made.connect(
            "127.0.0.1",
            at.port,
            expected_key=at.identity.public.ed25519,
            timeout_s=PATIENCE_S,
        )
        return await initiate(connection, terms, deadline_s=PATIENCE_S)
