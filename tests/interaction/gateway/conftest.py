"""A gateway over a network of real sockets, with rounds going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import zipnet
from tests.harness.fake_network import FakeNetwork
from zipnet.gateway import Gateway, GatewayOptions
from zipnet.settings import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork("tls") as running:
        yield running


@pytest.fixture
async def talker(network: FakeNetwork) -> AsyncIterator[zipnet.Publisher]:
    """A publisher with company; rounds run."""
    descriptor = network.committee.descriptor
    async with (
        zipnet.Publisher(descriptor, transport="tls") as one,
        zipnet.Publisher(descriptor, transport="tls") as two,
    ):
        await one.when.registered()
        await two.when.registered()
        network.keep_running(2, wait_s=0.5)
        yield one


def options(*, publishing: bool = False, **more: object) -> GatewayOptions:
    return GatewayOptions(
        listen=Endpoint("127.0.0.1", 0),
        transport="tls",
        publishing=publishing,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
async def gateway(network: FakeNetwork) -> AsyncIterator[Gateway]:
    async with Gateway(network.committee.descriptor, options()) as running:
        yield running
