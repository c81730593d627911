"""``zipnet gateway`` as a process."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

import zipnet
from tests.harness.command import zipnet as run
from tests.harness.fake_network import FakeNetwork
from tests.harness.http_client import fetch
from tests.harness.network import clean_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--listen", "0.0.0.0:0"), "anybody can read through this gateway"),
        (("--listen", "nonsense"), "--listen"),
        (("--publish-for-others", "yes"), "in so many words"),
        (("--proxy", "socks5://127.0.0.1:1"), "transport tls"),
    ],
)
def test_what_needs_a_switch_is_refused_in_one_line(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    path = tmp_path / "d.toml"
    path.write_bytes(FakeNetwork("tls").committee.descriptor_bytes)
    done = run("gateway", "--descriptor", path, *words, cwd=tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1


async def test_it_serves_until_sigterm(tmp_path: Path) -> None:
    async with FakeNetwork("tls") as network:
        path = tmp_path / "d.toml"
        path.write_bytes(network.committee.descriptor_bytes)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zipnet", "gateway", "--descriptor", str(path)),
            *("--listen", "127.0.0.1:0", "--transport", "tls"),
            cwd=ROOT,
            env=clean_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().strip()
        assert url.startswith("http://127.0.0.1:")
        async with zipnet.Publisher(network.committee.descriptor, transport="tls") as other:
            await other.when.registered()
            network.keep_running(2, wait_s=0.5)
            answer = await fetch(url + "/v1/publish", body={"text": "from another language"})
        assert answer.status == 200, answer.body
        assert (await fetch(url + "/")).status == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            _, err = await process.communicate()
        assert process.returncode == 0, err
        assert b"Traceback" not in err
