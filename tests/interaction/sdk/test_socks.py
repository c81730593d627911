"""Publishing and reading through SOCKS5 proxies, and no way around them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import zipnet
from tests.harness.fake_network import FakeNetwork
from tests.harness.socks import SocksLog, microsocks, socks_server
from zipnet.errors import ConfigError, NotSent, TransportError, ZipnetError
from zipnet.transport.socks import SocksDialer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork("tls") as running:
        yield running


async def _talk_and_read(network: FakeNetwork, proxy: str) -> None:
    descriptor = network.committee.descriptor
    async with (
        zipnet.Publisher(descriptor, transport="tls", proxy=proxy) as one,
        zipnet.Publisher(descriptor, transport="tls") as two,
    ):
        await one.when.registered()
        await two.when.registered()
        network.keep_running(2)
        receipt = await one.publish(b"round about")
    async with zipnet.Reader(descriptor, transport="tls", proxy=proxy, follow=False) as reader:
        read = [message async for message in reader]
    assert [m.payload for m in read] == [b"round about"]
    assert read[0].message_id == receipt.message_id


@pytest.mark.requirement("Z21")
@pytest.mark.requirement("M14")
async def test_through_debians_socks_server(network: FakeNetwork) -> None:
    async with microsocks() as proxy:
        await _talk_and_read(network, proxy)


async def test_every_link_goes_through_with_credentials_of_its_own(network: FakeNetwork) -> None:
    async with socks_server(SocksLog()) as proxy:
        await _talk_and_read(network, proxy.url)
        asked = {port for _, _, port in proxy.asked}
        assert network.ports["root"] in asked
        assert asked & {network.ports[f"s{i}"] for i in range(3)}
        assert len(set(proxy.users)) == len(proxy.users) >= 5, "links cannot be tied together"


async def test_names_are_resolved_by_the_proxy_and_nowhere_else(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    loop = asyncio.get_running_loop()
    genuine = loop.getaddrinfo

    async def watched(host: str, *rest: object, **more: object) -> object:
        looked_up.append(host)
        return await genuine(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", watched)
    log = SocksLog(names={"node.onion": "127.0.0.1"})
    async with socks_server(log) as proxy:
        dial = SocksDialer(proxy.url)
        (await dial("node.onion", network.ports["s0"], 5.0)).close()
        assert log.asked == [(3, "node.onion", network.ports["s0"])]
        with pytest.raises(TransportError, match="through the proxy") as refused:
            await dial("elsewhere.onion", 1, 5.0)
        assert "proxy" in (refused.value.hint or "")
    assert "node.onion" not in looked_up


async def test_without_its_proxy_a_client_reaches_nobody(network: FakeNetwork) -> None:
    descriptor = network.committee.descriptor
    async with socks_server(SocksLog()) as proxy:
        dead = proxy.url
    troubles: list[ZipnetError] = []
    async with zipnet.Publisher(
        descriptor, transport="tls", proxy=dead, on_trouble=troubles.append
    ) as one:
        with pytest.raises(NotSent, match=r"not registered yet; .*through the proxy") as failed:
            await one.publish(b"nowhere", timeout=1.0)
    assert "more clients" not in (failed.value.hint or ""), "others are not what it waits for"
    assert troubles
    assert all("through the proxy" in str(error) for error in troubles)
    assert not any(node.served for node in network.nodes.values())


@pytest.mark.parametrize(
    "wrong", ["", "127.0.0.1:9050", "http://127.0.0.1:9050", "socks5://127.0.0.1", "socks5://h:x"]
)
def test_what_is_no_socks5_proxy_is_named(network: FakeNetwork, wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        zipnet.Publisher(network.committee.descriptor, transport="tls", proxy=wrong)
    assert "socks5://" in (refused.value.hint or "")


def test_quic_does_not_go_through_a_proxy(network: FakeNetwork) -> None:
    with pytest.raises(ConfigError, match="only transport tls"):
        zipnet.Reader(network.committee.descriptor, proxy="socks5://127.0.0.1:9050")


@pytest.mark.requirement("M14")
async def test_the_process_has_no_socket_but_to_the_proxy(
    network: FakeNetwork, tmp_path: Path
) -> None:
    """Looked at from outside, in the kernel's own tables, while it talks."""
    (tmp_path / "d.toml").write_bytes(network.committee.descriptor_bytes)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
    async with (
        socks_server(SocksLog()) as proxy,
        zipnet.Publisher(network.committee.descriptor, transport="tls") as other,
    ):
        await other.when.registered()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zipnet", "publish", "--descriptor", str(tmp_path / "d.toml")),
            *("--transport", "tls", "--proxy", proxy.url, "--cover", "--message", "veiled"),
            cwd=ROOT,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        seen: set[tuple[object, ...]] = set()
        datagrams = 0

        async def watch() -> None:
            nonlocal datagrams
            while True:
                for sock in psutil.Process(process.pid).net_connections("inet"):
                    datagrams += sock.type.name == "SOCK_DGRAM"
                    seen.add(tuple(sock.raddr))  # empty where it listens or is not connected
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        network.keep_running(2, wait_s=0.5)
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        watching.cancel()
        await asyncio.wait({watching})
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert line.startswith(b"published round=")
    assert seen == {("127.0.0.1", proxy.port)}
    assert datagrams == 0
