"""The drills: what is tried, what must happen, and which metric must have seen it (row A11)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from tests.drills.paths import LossyPath, Rerouted, Wiretap
from tests.drills.world import COVERS, PATIENCE_S, World, fresh_identity
from tests.harness.attested import image
from zipnet.attestation import PlatformConfig
from zipnet.errors import AdmissionError, TransportError, ZipnetError
from zipnet.node.admin_client import call_admin
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES
from zipnet.sdk.publisher import Publisher
from zipnet.transport.quic import ALPN
from zipnet.transport.session import Role, Session, initiate
from zipnet.transport.tls import TlsTransport
from zipnet.wire.admin import AdminRequest
from zipnet.wire.frames import Frame, SessionKind, encode_frame_header
from zipnet.wire.handshake import VERSIONS, Proof, encode_handshake
from zipnet.wire.limits import DEFAULT_LIMITS
from zipnet.wire.messages import GetRecords, Kind, encode

if TYPE_CHECKING:
    from tests.harness.network import Node
    from zipnet.protocol.identity import Identity

__all__ = ["DRILLS", "QUICK", "Drill"]

Attack = Callable[[World, float], Awaitable[tuple[str, str]]]
"""Attacks until a moment of the monotonic clock; returns response and metric in words."""

_HUGE = replace(DEFAULT_LIMITS, max_frame_bytes=64 << 20)
_MIB = 1 << 20
_NOBODY = 65534
_BOMB_BYTES = 64 * _MIB
_SECOND = 1.0


@dataclass(frozen=True)
class Drill:
    """One drill.

    Attributes:
        name: Short name.
        what: The attack in a line.
        attack: Carries it out; raises AssertionError where the node does not respond as it must.
        gated: Whether it needs a group that asks for evidence.
    """

    name: str
    what: str
    attack: Attack
    gated: bool = False


class _Count:
    """How much a refusal counter of a node grew."""

    def __init__(self, world: World, node: Node, reason: str) -> None:
        self._world, self._node, self.reason = world, node, reason
        self._before = 0.0

    async def start(self) -> _Count:
        self._before = await self._world.rejected(self._node, self.reason)
        return self

    async def at_least(self, wanted: int) -> str:
        """Wait until it grew by so many; returns the metric in words."""
        grown = 0.0

        async def enough() -> bool:
            nonlocal grown
            grown = await self._world.rejected(self._node, self.reason) - self._before
            return grown >= wanted

        await self._world.until(enough, f"{wanted} of {self.reason} at {self._node.name}")
        return f'zipnet_rejected_total{{reason="{self.reason}"}} +{grown:g}'


async def _counting(world: World, node: Node, *reasons: str) -> list[_Count]:
    return [await _Count(world, node, reason).start() for reason in reasons]


async def _write(session: Session, data: bytes) -> None:
    """Put raw bytes on a session's stream."""
    await session._connection._stream.write(data)  # type: ignore[attr-defined]


async def _ended(session: Session) -> str:
    """Wait for the other side to end a session, and return its words."""
    async with asyncio.timeout(PATIENCE_S):
        while session.ended_by is None:  # noqa: ASYNC110 - a session tells nobody but its server
            await asyncio.sleep(0.02)
    return str(session.ended_by)


async def _code(request: Awaitable[object]) -> str:
    """The code a request is refused with; ``answered`` and ``cut`` where it was not."""
    try:
        await request
    except AdmissionError as error:
        return error.code
    except TransportError:
        return "cut"
    except ZipnetError as error:
        return error.reason
    return "answered"


# -- bytes ---------------------------------------------------------------------------------------


async def _oversize(world: World, until: float) -> tuple[str, str]:
    (count,) = await _counting(world, world.root, "frame_too_large")
    attempts, words = 0, ""
    while attempts < 12 or (attempts < 40 and time.monotonic() < until):
        async with world.session(world.root) as session:
            frame = Frame(Kind.SUBMIT_ENVELOPE, 9, bytes(32 * _MIB))
            with contextlib.suppress(TransportError):
                await _write(session, encode_frame_header(frame, _HUGE))
                for _ in range(64):
                    await _write(session, bytes(256 * 1024))
            words = await _ended(session)
            # Its goodbye, or a reset that overtook it: a socket closed with bytes unread sends one.
            told = ("code 5", "closed", "broke", "the peer ended the stream")
            assert any(said in words for said in told), words
        attempts += 1
    return f"{attempts} links ended: {words}", await count.at_least(attempts)


async def _bomb(world: World, until: float) -> tuple[str, str]:
    """Whatever could unfold: nothing here does, so each is refused for what it is."""
    (count,) = await _counting(world, world.root, "protocol")
    (http,) = await _counting(world, world.root, "too_large")
    squeezed = gzip.compress(bytes(_BOMB_BYTES))
    bombs = {
        "gzip": squeezed,
        "a map of 2^32": b"\xdf\xff\xff\xff\xff",
        "an array of 2^32": b"\xdd\xff\xff\xff\xff" + b"\xc0" * 64,
        "a string of 4 GiB": b"\x81\xdb\xff\xff\xff\xff" + b"a" * 64,
        "200,000 arrays in each other": b"\x91" * 200_000,
    }
    sent = 0
    while sent < len(bombs) or (sent < 60 and time.monotonic() < until):
        async with world.session(world.root) as session:
            payload = list(bombs.values())[sent % len(bombs)]
            assert await _code(session.request(Kind.SUBMIT_ENVELOPE, payload)) == "cut"
        sent += 1
    head = f"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {len(squeezed)}\r\n"
    get = head.replace("POST", "GET") + "Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
    answer = await _http(world.root, get.encode() + squeezed)
    assert b" 413 " in answer.split(b"\r\n")[0], answer[:80]
    ratio = _BOMB_BYTES // len(squeezed)
    return (
        f"{sent} payloads ended their links (one is {ratio} times as much elsewhere); HTTP 413",
        f"{await count.at_least(sent)}, {await http.at_least(1)}",
    )


async def _http(node: Node, data: bytes) -> bytes:
    port = int(str(node.wait_ready()["metrics_port"]))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read(65536)
    finally:
        writer.close()


async def _unknown_fields(world: World, until: float) -> tuple[str, str]:
    protocol, kind, unsupported, flags = await _counting(
        world, world.root, "protocol", "not_allowed", "frame_version", "frame_flags"
    )
    extra = msgspec.msgpack.encode({"from_sequence": 0, "limit": 1, "admin": True})
    rounds = 0
    while rounds < 3 or (rounds < 20 and time.monotonic() < until):
        async with world.session(world.root) as session:
            assert await _code(session.request(Kind.GET_RECORDS, extra)) == "cut"
        async with world.session(world.root) as session:
            assert await _code(session.request(200, b"")) == "not_allowed"
            await _write(session, b"\x63" + bytes(11))  # a version of the wire nobody speaks
            await _ended(session)
        async with world.session(world.root) as session:
            header = bytearray(encode_frame_header(Frame(Kind.GET_RECORDS, 1, b"")))
            header[1] |= 0x80
            await _write(session, bytes(header))
            await _ended(session)
        connection = await world.connect(world.root)
        hello = msgspec.msgpack.encode({**_hello(world, None), "shadow": 1})
        await connection.send(Frame(SessionKind.HELLO, 0, hello))
        with contextlib.suppress(TransportError):
            await connection.receive()
        await connection.close()
        rounds += 1
    metrics = [
        await protocol.at_least(2 * rounds),
        await kind.at_least(rounds),
        await unsupported.at_least(rounds),
        await flags.at_least(rounds),
    ]
    return f"{4 * rounds} refused: the link ends, but for a kind there is not", ", ".join(metrics)


def _hello(world: World, identity: Identity | None) -> dict[str, object]:
    descriptor = world.network.descriptor
    return {
        "versions": list(VERSIONS),
        "instance_id": bytes(descriptor.descriptor.instance),
        "group_id": bytes(descriptor.group),
        "role": "reader" if identity is None else "client",
        "identity": None if identity is None else identity.public.encode(),
        "nonce": os.urandom(32),
        "boot_id": os.urandom(16),
    }


# -- how much ------------------------------------------------------------------------------------


async def _storm(world: World, until: float) -> tuple[str, str]:
    rate, prefix, open_ = await _counting(
        world, world.root, "rate_limited", "prefix_limited", "overloaded"
    )
    payload = encode(GetRecords(from_sequence=1 << 40, limit=1))
    codes: Counter[str] = Counter()
    waits: list[float] = []

    async def one(session: Session) -> None:
        try:
            await session.request(Kind.GET_RECORDS, payload)
            codes["answered"] += 1
        except AdmissionError as error:
            codes[error.code] += 1
            if error.retry_after is not None:
                waits.append(error.retry_after)
        except TransportError:
            codes["cut"] += 1

    async def storm() -> None:
        async with world.session(world.root) as session:
            while time.monotonic() < until:
                await asyncio.gather(*(one(session) for _ in range(200)))

    began = time.monotonic()
    await asyncio.gather(storm(), storm(), storm())
    per_s = sum(codes.values()) / (time.monotonic() - began)
    assert codes["rate_limited"] + codes["prefix_limited"] > codes["answered"], codes
    assert waits, "whoever is refused is told when to come back"
    told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    metrics = [await rate.at_least(0), await prefix.at_least(0), await open_.at_least(0)]
    return f"of {per_s:.0f} requests a second: {told}; retry_after ≤ {max(waits):.2f} s", ", ".join(
        metrics
    )


async def _flood(world: World, until: float) -> tuple[str, str]:
    many, crowd = await _counting(world, world.root, "too_many_handshakes", "overloaded")
    codes: Counter[str] = Counter()

    async def hello() -> None:
        try:
            connection = await world.connect(world.root)
        except TransportError:
            codes["not even connected"] += 1
            return
        with contextlib.suppress(TransportError):
            await connection.send(
                Frame(SessionKind.HELLO, 0, msgspec.msgpack.encode(_hello(world, None)))
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                await connection.receive()
            codes["let in"] += 1
        except TransportError as error:
            codes["too many" if "too_many" in str(error) else "closed"] += 1
        await connection.close()

    async def flood() -> None:
        while time.monotonic() < until:
            await hello()

    first = _initial(world.network.ports["root"])
    await asyncio.gather(*(flood() for _ in range(8)), _spray(world, first, until))
    assert codes["too many"] > 0, codes
    told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    metrics = [await many.at_least(codes["too many"]), await crowd.at_least(0)]
    return f"{told}; QUIC first packets got a Retry each", ", ".join(metrics)


def _initial(port: int) -> bytes:
    engine = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=[ALPN]))
    engine.connect(("127.0.0.1", port), now=0.0)
    ((first, _),) = engine.datagrams_to_send(now=0.0)
    return bytes(first)


async def _spray(world: World, first: bytes, until: float) -> None:
    """Send QUIC first packets, 200 a second, and look that the answers are smaller."""
    loop, sent, got = asyncio.get_running_loop(), 0, 0
    with socket.socket(type=socket.SOCK_DGRAM) as forged:
        forged.bind(("127.0.0.1", 0))
        forged.setblocking(False)
        while time.monotonic() < until:
            for _ in range(20):
                await loop.sock_sendto(forged, first, ("127.0.0.1", world.network.ports["root"]))
                sent += len(first)
            await asyncio.sleep(0.1)
            with contextlib.suppress(BlockingIOError):
                while True:
                    got += len(forged.recv(65536))
    assert got * 3 <= sent, f"{sent} bytes were answered with {got}"


async def _slow_loris(world: World, until: float) -> tuple[str, str]:
    (slow,) = await _counting(world, world.root, "slow_peer")
    failures = await world.series(world.root, "zipnet_tls_handshake_failures_total")
    port = world.network.ports["root"]
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
    mute = [await world.connect(world.root) for _ in range(10)]
    http_port = int(str(world.root.wait_ready()["metrics_port"]))
    halves = [await asyncio.open_connection("127.0.0.1", http_port) for _ in range(20)]
    for _, writer in halves:
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")

    async def dribble() -> None:
        async with world.session(world.root) as session:
            frame = Frame(Kind.SUBMIT_ENVELOPE, 5, bytes(200_000))
            whole = encode_frame_header(frame) + frame.payload
            with contextlib.suppress(TransportError):
                for byte in whole:
                    await _write(session, bytes([byte]))
                    await asyncio.sleep(0.2)

    answers = 0
    dribbling = asyncio.gather(*(dribble() for _ in range(10)))
    while time.monotonic() < until:
        await asyncio.sleep(0.5)
        status, _ = await asyncio.to_thread(world.root.http, "/healthz")
        answers += status == 200
    await dribbling
    for reader, writer in (*silent, *halves):
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
    for connection in mute:
        with contextlib.suppress(TransportError):
            await connection.receive()
        await connection.close()
    assert answers > 0
    failed = await world.series(world.root, "zipnet_tls_handshake_failures_total") - failures
    assert failed >= len(silent), failed
    return (
        f"140 slow links of four kinds closed; /healthz answered {answers} times meanwhile",
        f"{await slow.at_least(20)}, zipnet_tls_handshake_failures_total +{failed:g}",
    )


# -- who -----------------------------------------------------------------------------------------


async def _bad_proof(world: World, until: float) -> tuple[str, str]:
    proof, quote = await _counting(world, world.server(0), "bad_proof", "tdx_mrtd")
    auth = 'service="handshake"'
    before = await world.series(world.server(0), "zipnet_auth_failures_total", auth)
    tried = 0
    while tried < 5 or (tried < 30 and time.monotonic() < until):
        signature = Proof(signature=os.urandom(HYBRID_SIGNATURE_BYTES), committee_mac=None)
        code = await _prove(world, world.server(0), fresh_identity(), encode_handshake(signature))
        assert code == "bad_proof", code
        tried += 1
    stolen = world.identity_of("root")
    liar = world.attestor(_Machine(world))
    for _ in range(3):
        connection = await world.connect(world.server(0))
        terms = replace(world.terms(Role.AGGREGATOR, stolen), attestor=liar)
        code = await _code(initiate(connection, terms, deadline_s=PATIENCE_S))
        assert code == "tdx_mrtd", code
    metrics = [await proof.at_least(tried), await quote.at_least(3)]
    failures = await world.series(world.server(0), "zipnet_auth_failures_total", auth) - before
    assert failures >= tried, failures
    return (
        f"{tried} forged signatures: bad_proof; 3 quotes of another image, a stolen key: tdx_mrtd",
        f"{', '.join(metrics)}, zipnet_auth_failures_total +{failures:g}",
    )


class _Machine:
    """An emulated machine that runs something else."""

    def __init__(self, world: World) -> None:
        self._world = world

    def quote(self, report_data: bytes) -> bytes:
        """Make a genuine quote of the wrong image."""
        from tdx.emulator.quotes import TdFields

        return self._world.emulator.quote(report_data, td=TdFields(mrtd=image("something else")))


async def _prove(world: World, node: Node, identity: Identity, proof: bytes) -> str:
    """Introduce an identity with a proof made elsewhere; the code it is refused with."""
    from zipnet.wire.handshake import Refusal, decode_handshake

    connection = await world.connect(node)
    try:
        hello = msgspec.msgpack.encode(_hello(world, identity))
        await connection.send(Frame(SessionKind.HELLO, 0, hello))
        async with asyncio.timeout(PATIENCE_S):
            await connection.receive()
            await connection.send(Frame(SessionKind.PROOF, 0, proof))
            answer = await connection.receive()
    finally:
        await connection.close()
    if answer.kind != SessionKind.REFUSAL:
        return "let in"
    return decode_handshake(answer.payload, Refusal).code


async def _replay(world: World, until: float) -> tuple[str, str]:
    proof, identity_, server = (
        *(await _counting(world, world.server(0), "bad_proof", "identity_mismatch")),
        world.server(0),
    )
    tap = Wiretap(TlsTransport(None, registered={}))
    platform = PlatformConfig(collateral=world.collateral) if world.attested else None
    codes: Counter[str] = Counter()
    identity = fresh_identity()
    async with Publisher(
        world.network.descriptor,
        transport=tap,
        identity=identity,
        platform=platform,
        on_warning=lambda _text: None,
    ) as publisher:
        async with asyncio.timeout(3 * PATIENCE_S):
            await publisher.when.took_part()
            while time.monotonic() < until or not codes:
                await tap.heard(Kind.SUBMIT_ENVELOPE)
                for _ in range(3):  # the same bytes over the same link, in and after their round
                    codes[await tap.again(Kind.SUBMIT_ENVELOPE)] += 1
                    await asyncio.sleep(0.4)
        size = await world.series(server, "zipnet_client_registry_size")
        assert await _prove(world, server, identity, tap.proofs[0]) == "bad_proof"
        async with world.session(server) as thief:
            code = await _code(thief.request(Kind.REGISTER, tap.last[Kind.REGISTER].payload))
        assert code == "identity_mismatch", code
        assert await world.series(server, "zipnet_client_registry_size") == size
    assert max(world.final_rounds()) <= COVERS + 1, "a copy is nobody besides"
    told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    metrics = [await proof.at_least(1), await identity_.at_least(1)]
    return (
        f"envelopes: {told}, counted once; proof: bad_proof; another's registration: {code}",
        ", ".join(metrics),
    )


async def _sockets(world: World, until: float) -> tuple[str, str]:
    del until
    folder = world.folder / "s0.state" / "admin"
    path = folder / "admin.sock"
    modes = f"{folder.stat().st_mode & 0o777:o} and {path.stat().st_mode & 0o777:o}"
    assert modes == "700 and 600", modes
    denied = 'reason="uid"'
    before = await world.series(world.server(0), "zipnet_uds_denied_total", denied)
    barred = await _as_nobody(str(path))
    assert barred == "PermissionError", barred
    # Somebody opens the way: the node still asks the kernel who calls.
    ways = [folder, *folder.parents[: len(folder.parts) - len(world.folder.parts) + 1]]
    kept = [(way, way.stat().st_mode & 0o777) for way in (path, *ways)]
    try:
        for way, _ in kept:
            way.chmod(0o777)
        heard = await _as_nobody(str(path))
    finally:
        for way, mode in kept:
            way.chmod(mode)
    assert heard == "b''", heard
    reply = await asyncio.to_thread(call_admin, folder, AdminRequest(verb="shutdown", tokens=[]))
    assert not reply.ok
    grown = await world.series(world.server(0), "zipnet_uds_denied_total", denied) - before
    assert grown >= 1
    return (
        f"modes {modes}: {barred}; once opened, turned away unheard; no capability: {reply.code}",
        f"zipnet_uds_denied_total{{{denied}}} +{grown:g}",
    )


async def _as_nobody(path: str) -> str:
    """What another user of this machine hears from a socket."""
    program = (
        f"import os, socket; os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})\n"
        "made = socket.socket(socket.AF_UNIX); made.settimeout(10)\n"
        "try:\n"
        f"    made.connect({path!r}); made.send(b'x' * 64); print(repr(made.recv(64)))\n"
        "except ConnectionError:\n    print(repr(b''))\n"
        "except OSError as error:\n    print(type(error).__name__)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", program, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


# -- what it depends on --------------------------------------------------------------------------


async def _policy_outage(world: World, until: float) -> tuple[str, str]:
    server, good = world.server(0), world.collateral.read_text()
    target = 'target="collateral"'
    before = await world.series(server, "zipnet_breaker_open_total", target)
    try:
        world.collateral.write_text('{"version": 1, "tcb_info": "nonsense"}')
        await asyncio.sleep(2 * _SECOND)
        world.collateral.unlink()

        async def opened() -> bool:
            return await world.series(server, "zipnet_breaker_open_total", target) > before

        await world.until(opened, "the breaker of the collateral to open")
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        status, _ = await asyncio.to_thread(server.http, "/readyz")
        seconds = await world.series(server, "zipnet_breaker_open_seconds", target)
        # Who comes now is judged all the same, by what was good last; nobody is waved through.
        quote = await _wrong_image(world)
    finally:
        world.collateral.write_text(good)
    assert status == 200, "what was good last is still good"
    assert quote == "tdx_mrtd", quote

    async def closed() -> bool:
        return await world.series(server, "zipnet_breaker_open_seconds", target) == 0

    await world.until(closed, "the breaker to close")
    opened_by = await world.series(server, "zipnet_breaker_open_total", target) - before
    return (
        "what was good last stays in use, a wrong image is refused, the file is taken once back",
        f"zipnet_breaker_open_total{{{target}}} +{opened_by:g}, open for {seconds:.1f} s",
    )


async def _wrong_image(world: World) -> str:
    liar = world.attestor(_Machine(world))
    connection = await world.connect(world.server(0))
    terms = replace(world.terms(Role.AGGREGATOR, world.identity_of("root")), attestor=liar)
    return await _code(initiate(connection, terms, deadline_s=PATIENCE_S))


async def _degraded(world: World, until: float) -> tuple[str, str]:
    """One publisher behind a path that loses, delays and doubles; the others must not notice."""
    platform = PlatformConfig(collateral=world.collateral) if world.attested else None
    before = await world.series(world.root, "zipnet_envelopes_accepted_total")
    receipts = 0
    async with LossyPath(world.network.ports, loss=0.2, delay_s=0.04) as path:
        async with Publisher(
            world.network.descriptor,
            transport=Rerouted(path.ports),
            platform=platform,
            on_warning=lambda _text: None,
        ) as publisher:
            while receipts < 1 or time.monotonic() < until:
                receipt = await publisher.publish(os.urandom(16), timeout=60)
                receipts += 1
                assert receipt.participants > 0
        told = f"{path.lost} of {path.seen} datagrams lost, {path.doubled} doubled"
    grown = await world.series(world.root, "zipnet_envelopes_accepted_total") - before
    assert path.lost > 0
    return (
        f"{told}: {receipts} of its messages confirmed",
        f"zipnet_envelopes_accepted_total +{grown:g}",
    )


async def _clock_jump(world: World, until: float) -> tuple[str, str]:
    wrong, right = world.server(2), world.server(0)
    world.skew.write_text("60")
    try:

        async def noticed() -> bool:
            return "clock_skew" in (await asyncio.to_thread(wrong.http, "/readyz"))[1]

        await world.until(noticed, "the jump to be noticed")
        skew = 0.0

        async def seen() -> bool:
            nonlocal skew
            skew = await world.series(right, "zipnet_clock_skew_seconds", 'server="2"')
            return abs(skew - 60) < 5

        await world.until(seen, "the others to see it")
        status, _ = await asyncio.to_thread(right.http, "/readyz")
        await asyncio.sleep(max(0.0, until - time.monotonic()))
    finally:
        world.skew.unlink()
    assert status == 200, "those who agree are ready"

    async def back() -> bool:
        return (await asyncio.to_thread(wrong.http, "/readyz"))[0] == 200

    await world.until(back, "the server to be ready again")
    return (
        "its own /readyz says clock_skew, the others stay ready; ready again once it is right",
        f'zipnet_clock_skew_seconds{{server="2"}} {skew:.1f}',
    )


DRILLS = (
    Drill("oversize-frame", "frames of 32 MiB, of which 16 MiB are sent", _oversize),
    Drill("decompression-bomb", "what unfolds elsewhere, as a message and over HTTP", _bomb),
    Drill("quota-storm", "three clients ask as fast as they can", _storm),
    Drill("policy-outage", "the collateral file is garbage, then gone", _policy_outage, gated=True),
    Drill("bad-proof", "forged signatures, and quotes of another image", _bad_proof, gated=True),
    Drill("socket-permissions", "another user of the machine at the admin socket", _sockets),
    Drill("replay", "a recorded proof, registration and envelopes, sent again", _replay),
    Drill("degraded-delivery", "a publisher's path loses 20 %, delays and doubles", _degraded),
    Drill("slow-loris", "connections that dawdle in each way there is", _slow_loris),
    Drill("unknown-fields", "fields, kinds, flags and versions nobody knows", _unknown_fields),
    Drill("clock-jump", "one server's clock jumps by a minute, and back", _clock_jump),
    # The last one: what it uses up is what the others' handshakes need, from the same address.
    Drill("handshake-flood", "handshakes from eight hands, and 200 QUIC packets a second", _flood),
)
"""All drills, in the order they are run."""

_EVERY_RUN = {"oversize-frame", "decompression-bomb", "unknown-fields"}
QUICK = tuple(drill for drill in DRILLS if drill.name in _EVERY_RUN)
"""Those that are part of every test run."""
