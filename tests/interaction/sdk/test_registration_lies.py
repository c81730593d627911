"""A server that lies about a client's place in the registry must not bend its chains unnoticed.

protocol.md §4.6: chains are counted from the registration's first round. A client that counts from
another one sends noise, which spoils the round for everybody and shows nobody why.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.harness.fake_network import FakeNetwork
from zipnet.errors import AdmissionError, VerificationError, ZipnetError
from zipnet.sdk import links
from zipnet.sdk.publisher import Publisher

if TYPE_CHECKING:
    from zipnet.wire.messages import Registered

LIES: dict[str, Callable[[Registered], Registered]] = {
    "a later first round": lambda p: msgspec.structs.replace(p, first_round=p.first_round + 1),
    "an earlier first round": lambda p: msgspec.structs.replace(p, first_round=p.first_round - 1),
    "another's index": lambda p: msgspec.structs.replace(p, index=p.index + 1),
    "a version nobody reaches": lambda p: msgspec.structs.replace(p, version=p.version + 1000),
}


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork() as made:
        for _ in range(3):
            made.committee.open_round()
            made.committee.abort()
        yield made


class _InOrder(random.SystemRandom):
    """Lets the first server of the list be asked first."""

    def sample(self, population: Sequence[Any], k: int, *, counts: object = None) -> list[Any]:
        assert counts is None
        return list(population)[:k]


@pytest.fixture(autouse=True)
def _first_server_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_DRAWN", _InOrder())


def _publisher(network: FakeNetwork, troubles: list[ZipnetError]) -> Publisher:
    return Publisher(
        network.committee.descriptor,
        transport="tls",
        on_trouble=troubles.append,
    )


@pytest.mark.parametrize("lie", LIES)
async def test_a_server_that_lies_about_a_place_is_left(network: FakeNetwork, lie: str) -> None:
    network.nodes["s0"].lie_about_place = LIES[lie]
    first: list[ZipnetError] = []
    second: list[ZipnetError] = []
    async with _publisher(network, first) as one, _publisher(network, second) as two:
        await one.when.registered()
        await two.when.registered()
        network.keep_running(2, wait_s=0.5)
        receipt = await one.publish(b"counted from the right round", timeout=20.0)
    assert receipt.participants == 2
    for troubles in (first, second):
        assert any(isinstance(e, VerificationError) and "s0" in str(e) for e in troubles)


async def test_one_liar_keeps_nobody_out_whom_the_others_agree_about(network: FakeNetwork) -> None:
    network.nodes["s2"].lie_about_place = LIES["a later first round"]
    troubles: list[ZipnetError] = []
    async with _publisher(network, troubles) as one:
        await one.when.registered()
        assert len(network.committee.changes) == 1, "it registered once"


async def test_a_place_that_nobody_else_confirms_is_told(network: FakeNetwork) -> None:
    for name in ("s1", "s2"):
        refusal = AdmissionError("later", code="overloaded")
        network.nodes[name].refuse = lambda _facts, refusal=refusal: refusal  # type: ignore[misc]
    troubles: list[ZipnetError] = []
    async with _publisher(network, troubles) as one:
        await one.when.registered()
    assert any("1 of 3 servers confirm" in str(error) for error in troubles)
