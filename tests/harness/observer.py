"""Somebody who watches one client's packets: a relay that notes them, and a classifier.

The observer is given more than it would have: it knows when each round opened, and learns from
labelled rounds of the very same client. What it may not see is anything inside the packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Packet", "Tap", "auc", "cross_validated", "features_of", "tap", "write_plot"]

FOLDS = 5
STUMPS = 40
RIDGE = 1e-2


@dataclass(frozen=True)
class Packet:
    """One packet, or one piece of the stream as the relay got it."""

    at: float
    up: bool
    size: int
    link: int


@dataclass
class Tap:
    """A relay in front of one node, and all that passed."""

    port: int
    to: int
    packets: list[Packet] = field(default_factory=list)

    def note(self, size: int, link: int, *, up: bool) -> None:
        """Note a packet."""
        self.packets.append(Packet(time.monotonic(), up, size, link))

    def of_link(self, link: int) -> list[Packet]:
        """Return what passed on one link; links are counted from 0 as they came."""
        return [packet for packet in self.packets if packet.link == link]


@contextlib.asynccontextmanager
async def tap(transport: str, port: int, to: int) -> AsyncIterator[Tap]:
    """Relay TCP (tls) or UDP (quic) from a port to another one of this machine."""
    noted = Tap(port, to)
    if transport == "tls":
        async with _tcp(noted):
            yield noted
    else:
        async with _udp(noted):
            yield noted


@contextlib.asynccontextmanager
async def _tcp(noted: Tap) -> AsyncIterator[None]:
    links = itertools.count()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: int, *, up: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                noted.note(len(data), link, up=up)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either end went away
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", noted.to)
        except OSError:
            writer.close()
            return
        link = next(links)
        await asyncio.gather(
            pump(reader, far_writer, link, up=True), pump(far_reader, writer, link, up=False)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", noted.port)
    try:
        yield
    finally:
        server.close()


class _Half(asyncio.DatagramProtocol):
    """One side of the UDP relay: the client's, or towards the node for one client address."""

    def __init__(self, relay: _UdpRelay, client: tuple[str, int] | None) -> None:
        self.relay, self.client = relay, client
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's is one by its methods, not by its class.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.relay.passed(data, addr, self)


class _UdpRelay:
    def __init__(self, noted: Tap) -> None:
        self.noted = noted
        self.front = _Half(self, None)
        self.backs: dict[tuple[str, int], asyncio.Task[_Half]] = {}
        self.links: dict[tuple[str, int], int] = {}

    def passed(self, data: bytes, addr: tuple[str, int], half: _Half) -> None:
        if half.client is not None:
            self.noted.note(len(data), self.links[half.client], up=False)
            if self.front.transport is not None:
                self.front.transport.sendto(data, half.client)
            return
        self.noted.note(len(data), self.links.setdefault(addr, len(self.links)), up=True)
        back = self.backs.get(addr)
        if back is None:
            back = self.backs[addr] = asyncio.create_task(self.dial(addr))
        back.add_done_callback(lambda made: _send(made.result(), data))

    async def dial(self, client: tuple[str, int]) -> _Half:
        half = _Half(self, client)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: half, remote_addr=("127.0.0.1", self.noted.to))
        return half


def _send(half: _Half, data: bytes) -> None:
    if half.transport is not None and not half.transport.is_closing():
        half.transport.sendto(data)


@contextlib.asynccontextmanager
async def _udp(noted: Tap) -> AsyncIterator[None]:
    relay = _UdpRelay(noted)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: relay.front, local_addr=("127.0.0.1", noted.port)
    )
    try:
        yield
    finally:
        transport.close()
        for task in relay.backs.values():
            if task.done() and (back := task.result().transport) is not None:
                back.close()


def features_of(packets: Sequence[Packet], opened: float) -> list[float]:
    """Return sizes and timings of what passed in one round."""
    ups = [packet for packet in packets if packet.up]
    downs = [packet for packet in packets if not packet.up]
    times = [packet.at - opened for packet in ups] or [0.0]
    gaps = np.diff(np.array([packet.at for packet in packets])) if len(packets) > 1 else [0.0]
    after = [p.at - opened - times[0] for p in downs if p.at - opened > times[0]] or [0.0]
    largest = max((packet.size for packet in ups), default=0)
    return [
        float(sum(packet.size for packet in ups)),
        float(len(ups)),
        float(largest),
        float(len(downs)),
        times[0],
        times[-1],
        times[-1] - times[0],
        after[0],
        float(np.mean(gaps)),
        float(np.max(gaps)),
        float(np.min(gaps)),
    ]


def auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; ties count half."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):
        same = scores == value
        ranks[same] = ranks[same].mean()
    positive = int(labels.sum())
    negative = len(labels) - positive
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def cross_validated(
    table: NDArray[np.float64],
    labels: NDArray[np.bool_],
    seed: int,
    group: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return out-of-sample scores of a ridge classifier and of boosted stumps.

    Args:
        table: A row of features for each sample.
        labels: What each sample is.
        seed: Draws the folds.
        group: Samples of one group are in one fold, as what is learnt of one tells of the others.
    """
    group = np.arange(len(labels)) if group is None else group
    names, member = np.unique(group, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[member]
    scores = {"ridge": np.zeros(len(labels)), "stumps": np.zeros(len(labels))}
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        # Ranks within each fold: what one fold's training set thinks of all its rounds, which is
        # the opposite of what the fold left out for it to think, is no guess about any of them.
        scores["ridge"][test] = _ranks(_ridge(table[train], labels[train], table[test]))
        scores["stumps"][test] = _ranks(_stumps(table[train], labels[train], table[test]))
    return scores


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places, minlength=len(found))
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks: NDArray[np.float64] = middle[places] / (len(values) + 1)
    return ranks


def _ridge(
    train: NDArray[np.float64], labels: NDArray[np.bool_], test: NDArray[np.float64]
) -> NDArray[np.float64]:
    middle, spread = train.mean(0), train.std(0) + 1e-12

    def widened(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = np.clip((rows - middle) / spread, -5, 5)
        return np.hstack([scaled, scaled**2, np.ones((len(rows), 1))])

    known = widened(train)
    weight = RIDGE * len(train) * np.eye(known.shape[1])
    solved = np.linalg.solve(known.T @ known + weight, known.T @ (labels * 2.0 - 1.0))
    result: NDArray[np.float64] = widened(test) @ solved
    return result


def _stumps(
    train: NDArray[np.float64], labels: NDArray[np.bool_], test: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AdaBoost over one-feature thresholds."""
    signs = labels * 2.0 - 1.0
    weights = np.full(len(train), 1 / len(train))
    cuts = np.quantile(train, np.linspace(0.05, 0.95, 19), axis=0)
    total = np.zeros(len(test))
    for _ in range(STUMPS):
        above = train[None, :, :] > cuts[:, None, :]
        wrong = np.einsum("cnf,n->cf", above != (signs[None, :, None] > 0), weights)
        flipped = wrong > 0.5
        error = np.clip(np.where(flipped, 1 - wrong, wrong), 1e-9, 1)
        cut, feature = np.unravel_index(np.argmin(error), error.shape)
        amount = 0.5 * np.log((1 - error[cut, feature]) / error[cut, feature])
        turn = -1.0 if flipped[cut, feature] else 1.0
        says = turn * np.where(train[:, feature] > cuts[cut, feature], 1.0, -1.0)
        weights *= np.exp(-amount * signs * says)
        weights /= weights.sum()
        total += amount * turn * np.where(test[:, feature] > cuts[cut, feature], 1.0, -1.0)
    return total


def write_plot(
    path: Path, title: str, delays: NDArray[np.float64], labels: NDArray[np.bool_],
    scores: dict[str, NDArray[np.float64]],
) -> None:  # fmt: skip
    """Write delays of talk and cover, and the ROC curves, as one SVG; the numbers beside it."""
    width, height, bins = 420, 300, 24
    edges = np.linspace(0, float(np.quantile(delays, 0.995)) + 1e-9, bins + 1)
    head = f'width="{2 * width + 60}" height="{height + 70}" font-family="sans-serif"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {head} font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="20" y="20">{title}</text>',
    ]
    for shift, (chosen, name, colour) in enumerate(
        ((labels, "talk", "#b3541e"), (~labels, "cover", "#22577a"))
    ):
        counts, _ = np.histogram(delays[chosen], edges)
        share = counts / max(counts.sum(), 1)
        for at, value in enumerate(share):
            x = 20 + at * width / bins + shift * width / bins / 2
            tall = value * height * bins / 4
            parts.append(
                f'<rect x="{x:.1f}" y="{height + 30 - tall:.1f}" fill="{colour}" '
                f'width="{width / bins / 2 - 0.5:.1f}" height="{tall:.1f}"/>'
            )
        parts.append(f'<text x="{30 + 90 * shift}" y="{height + 50}" fill="{colour}">{name}</text>')
    left, right = 1000 * edges[0], 1000 * edges[-1]
    parts.append(
        f'<text x="230" y="{height + 50}">first packet, {left:.0f} to {right:.0f} ms</text>'
    )
    base = width + 40
    parts.append(f'<path d="M{base} {height + 30} L{base + width} 30" stroke="#999" fill="none"/>')
    for at, (name, values) in enumerate(scores.items()):
        ordered = labels[np.argsort(-values)]
        rise = np.cumsum(ordered) / max(ordered.sum(), 1)
        run = np.cumsum(~ordered) / max((~ordered).sum(), 1)
        line = " L".join(
            f"{base + x * width:.1f} {height + 30 - y * height:.1f}"
            for x, y in zip(run[::4], rise[::4], strict=True)
        )
        colour = ("#b3541e", "#22577a")[at]
        parts.append(f'<path d="M{line}" stroke="{colour}" fill="none"/>')
        text = f"{name}: AUC {auc(values, labels):.3f}"
        parts.append(f'<text x="{base + 150 * at}" y="{height + 50}" fill="{colour}">{text}</text>')
    parts.append("</svg>")
    path.write_text("\n".join(parts), encoding="utf-8")
    numbers = {
        "title": title,
        "rounds": len(labels),
        "talk": int(labels.sum()),
        "auc": {name: round(auc(values, labels), 4) for name, values in scores.items()},
    }
    path.with_suffix(".json").write_text(json.dumps(numbers, indent=2) + "\n")
