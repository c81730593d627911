"""Whoever takes a server after a round finds nothing there that opens the round.

protocol.md §4.4, §8: chain keys are stepped and erased. The test knows every key, because it was
the clients; it freezes a server, takes all of its files and all of its memory, and looks for them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, wait_for
from zipnet.machines import publisher as publisher_module
from zipnet.machines.client_chains import ClientChains
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.ratchet import initial_chain_key, pad_key, step
from zipnet.protocol.secret import Secret
from zipnet.sdk import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zipnet.protocol.ids import GroupId, RoundNumber
    from zipnet.protocol.record import VerifiedRecord

pytestmark = pytest.mark.timeout(240)
SERVER = ServerIndex(0)
_CHUNK = 1 << 24
_KEY = 32


@dataclass
class Chain:
    """What one client agreed on with the server, as the client knew it for a moment."""

    epoch: int
    secret: bytes
    first_round: int

    def keys(self, network: LiveNetwork, records: list[VerifiedRecord]) -> dict[int, list[bytes]]:
        """Chain key, and pad key where there is a record, of each round up to the next but one."""
        hashes = {int(r.round): r.record.content.header.hash for r in records}
        key = initial_chain_key(network.descriptor.group, self.epoch, Secret(self.secret))
        found: dict[int, list[bytes]] = {}
        for number in range(self.first_round, max(hashes) + 4):
            found[number] = [bytes(key)]
            if number in hashes:
                found[number].append(bytes(pad_key(key, hashes[number])))
            step(key)
        return found


def listen_in(monkeypatch: pytest.MonkeyPatch) -> list[Chain]:
    """Keep what every registration of this process agrees on with the server, in order."""
    kept: list[Chain] = []

    class Recording(ClientChains):
        __slots__ = ()

        def __init__(
            self,
            group: GroupId,
            shared: Mapping[ServerIndex, tuple[int, Secret]],
            *,
            first_round: RoundNumber,
            max_skip_rounds: int,
        ) -> None:
            epoch, secret = shared[SERVER]
            with secret.reveal() as view:
                kept.append(Chain(epoch, bytes(view), int(first_round)))
            super().__init__(
                group, shared, first_round=first_round, max_skip_rounds=max_skip_rounds
            )

    monkeypatch.setattr(publisher_module, "ClientChains", Recording)
    return kept


def files_of(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def memory_of(pid: int) -> Iterator[bytes]:
    """Everything the process could read in its writable memory, in overlapping pieces."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    areas = [
        (int(found[1], 16), int(found[2], 16))
        for found in (re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line) for line in lines)
        if found
    ]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in areas:
            for at in range(start, end, _CHUNK):
                try:
                    memory.seek(at)
                    yield memory.read(min(_CHUNK + _KEY, end - at))
                except (OSError, OverflowError, ValueError):
                    continue  # a guard page, or an area that is not backed


def found_in(pieces: Iterator[bytes], wanted: dict[str, bytes]) -> set[str]:
    found: set[str] = set()
    for piece in pieces:
        found |= {name for name, key in wanted.items() if name not in found and key in piece}
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's memory needs root")
@pytest.mark.requirement("Z12")
async def test_the_disk_and_memory_of_a_server_open_no_round_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = LiveNetwork(tmp_path)
    chains = listen_in(monkeypatch)
    node = network.nodes[f"s{SERVER}"]
    try:
        network.start()
        async with AsyncExitStack() as stack:
            publishers = [
                await stack.enter_async_context(Publisher(network.descriptor, transport="tls"))
                for _ in range(3)
            ]
            for publisher in publishers:
                await publisher.publish(b"taken too late", timeout=90)
            records = network.records(node.name)
            await asyncio.to_thread(
                wait_for, lambda: len(network.records(node.name)) > len(records) + 2, "more rounds"
            )
            os.kill(node.pid, signal.SIGSTOP)
            try:
                records = network.records(node.name)
                last = int(records[-1].round)
                past: dict[str, bytes] = {}
                present: dict[str, bytes] = {}
                for number, chain in enumerate(chains):
                    for at, keys in chain.keys(network, records).items():
                        # The last record may have been sealed a moment before its chains step.
                        kept = past if at < last else present
                        for kind, key in zip(("chain", "pad"), keys, strict=False):
                            kept[f"client {number} round {at} {kind}"] = key
                    past[f"client {number} shared secret"] = chain.secret
                disk = list(files_of(tmp_path / f"{node.name}.state"))
                in_memory = await asyncio.to_thread(found_in, memory_of(node.pid), past | present)
            finally:
                os.kill(node.pid, signal.SIGCONT)
    finally:
        network.close()
    assert len(past) > 3 * len(chains)
    assert found_in(iter(disk), present), "the search finds what is there"
    assert in_memory & set(present), "the search finds what is there"
    assert found_in(iter(disk), past) == set()
    lingering = in_memory & set(past)
    print(f"{len(past)} keys of past rounds: none on disk, in memory {sorted(lingering)}")
    assert lingering == set()
