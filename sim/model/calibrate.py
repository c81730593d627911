"""Measures what the protocol's primitives cost on this machine, for :mod:`sim.model.costs`."""

from __future__ import annotations

import asyncio
import os
import platform
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sim.model.costs import Costs
from zipnet.protocol.identity import Identity, verify_ed25519, verify_hybrid
from zipnet.protocol.ids import Digest, MessageId, SlotIndex, content_digest
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.params import RoundParams
from zipnet.protocol.participants import Participants
from zipnet.protocol.ratchet import pad_key, step
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import Fragment, decode_slot, encode_slot
from zipnet.transport.certificate import load_into, node_certificate

__all__ = ["calibrate"]

_TRIALS = 15
_EXCHANGES = 200
_SIZE = 180_224
_USE = "envelope"


def calibrate() -> Costs:
    """Measure every cost; takes a few seconds."""
    identity = Identity.from_secret(Secret(os.urandom(32)))
    public, message = identity.public, os.urandom(104)
    single, hybrid = identity.sign_ed25519(_USE, message), identity.sign("record", message)
    seed = Secret(os.urandom(32))
    pair = KemKeyPair.from_seed(seed)
    ciphertext, _ = encapsulate(pair.public, os.urandom)
    chain, header = bytearray(os.urandom(32)), Digest(os.urandom(32))
    engine = PadEngine.calibrate(time.perf_counter, body_bytes=_SIZE)
    small, large, blob = bytearray(64), bytearray(_SIZE), os.urandom(_SIZE)
    pad_fixed = _time(lambda: engine.apply(small, chain), 300)
    sums, other = np.zeros(_SIZE, np.uint8), np.frombuffer(blob, np.uint8)
    return Costs(
        measured_on=f"{platform.machine()}, CPython {platform.python_version()}, {engine.name}",
        ed25519_sign=_time(lambda: identity.sign_ed25519(_USE, message), 100),
        ed25519_verify=_time(lambda: verify_ed25519(public.ed25519, _USE, message, single), 100),
        hybrid_sign=_time(lambda: identity.sign("record", message), 10),
        hybrid_verify=_time(lambda: verify_hybrid(public, "record", message, hybrid), 10),
        encapsulate=_time(lambda: encapsulate(pair.public, os.urandom), 20),
        decapsulate=_time(lambda: KemKeyPair.from_seed(seed).decapsulate(ciphertext), 20),
        chain_step=_time(lambda: step(chain), 1000),
        pad_key=_time(lambda: pad_key(chain, header), 1000),
        pad_fixed=pad_fixed,
        pad_byte=max(_time(lambda: engine.apply(large, chain), 50) - pad_fixed, 0.0) / _SIZE,
        digest_byte=_time(lambda: content_digest(blob), 50) / _SIZE,
        xor_byte=_time(lambda: np.bitwise_xor(sums, other, out=sums), 100) / _SIZE,
        slot_fixed=_slot(header),
        fold_fixed=_time(_fold, 100),
        fsync=_fsync(),
        **asyncio.run(_messages()),
    )


async def _messages() -> dict[str, float]:
    """Measure messages between two ends of one process: half of each exchange is one end's."""
    certificate = node_certificate(Ed25519PrivateKey.generate())
    inside, outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    load_into(inside, certificate)
    outside.check_hostname, outside.verify_mode = False, ssl.CERT_NONE

    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                await reader.readexactly(size)
                writer.write(b"\0")
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()
            ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=inside)
    host, port = server.sockets[0].getsockname()[:2]
    reader, writer = await asyncio.open_connection(host, port, ssl=outside)

    async def exchange(size: int) -> float:
        begin = time.perf_counter()
        writer.write(size.to_bytes(4, "big") + bytes(size))
        await writer.drain()
        await reader.readexactly(1)
        return time.perf_counter() - begin

    small = median([await exchange(64) for _ in range(_EXCHANGES)])
    large = median([await exchange(_SIZE) for _ in range(_EXCHANGES)])
    writer.close()
    await ended.wait()
    server.close()
    # An exchange is two messages, each with a sending and a receiving end.
    return {"message_fixed": small / 4, "message_byte": max(large - small, 0.0) / 2 / _SIZE}


def _time(call: Callable[[], object], repeat: int) -> float:
    samples: list[float] = []
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        for _ in range(repeat):
            call()
        samples.append((time.perf_counter() - begin) / repeat)
    return median(samples)


def _slot(header: Digest) -> float:
    params = RoundParams()
    fragment = Fragment(MessageId(bytes(16)), 0, 1, b"x" * params.fragment_bytes)

    def both() -> None:
        raw = encode_slot(fragment, params, header, SlotIndex(0))
        decode_slot(raw, params, header, SlotIndex(0))

    return _time(both, 200) / 2


def _fold() -> None:
    one, other = Participants((5000,)), Participants((4000,))  # type: ignore[arg-type]
    one.isdisjoint(other)
    one.union(other)


def _fsync() -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        with path.open("wb") as file:

            def once() -> None:
                file.write(bytes(512))
                file.flush()
                os.fsync(file.fileno())

            return _time(once, 5)
