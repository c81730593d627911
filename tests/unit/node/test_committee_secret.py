"""The next committee secret of a running server: found when it comes, not ready without it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee
from zipnet.node.committee_secret import CONDITION, watch_secret
from zipnet.observe.health import Health
from zipnet.protocol.committee_secrets import CommitteeSecrets
from zipnet.protocol.ids import Digest, committee_fingerprint
from zipnet.protocol.secret import Secret
from zipnet.settings.keyfiles import create_secret_file
from zipnet.settings.secretfiles import LaterSecret, SecretRoute, read_secret_file
from zipnet.settings.secretsources import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTOR = HarnessCommittee().descriptor


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - the file system rings no bell
            await asyncio.sleep(0.02)


@pytest.mark.requirement("Z6")
async def test_it_is_taken_when_it_comes_and_the_server_is_ready_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = tmp_path / "drawn"
    create_secret_file(drawn, os.urandom)
    secret, _ = read_secret_file(drawn, what="test")
    named = committee_fingerprint(secret, DESCRIPTOR.descriptor.instance)
    later = replace(DESCRIPTOR, descriptor=replace(DESCRIPTOR.descriptor, rotated_secret=named))
    secrets = CommitteeSecrets(later, [Secret(bytes(range(32)))])
    health, read = Health(()), list[Digest]()
    path = tmp_path / "committee.secret.next"
    route = SecretRoute("NEXT_COMMITTEE_SECRET", "test", FileSource(path))
    watching = asyncio.create_task(
        watch_secret(secrets, LaterSecret(route, production=False), health, read.append)
    )

    def failed() -> set[str]:
        return {item.reason for item in health.failed() if item.condition == CONDITION}

    try:
        await until(lambda: failed() == {"not_given"})
        path.write_text("no secret at all")
        await until(lambda: "next_secret_refused" in caplog.text)
        assert "no secret at all" not in caplog.text
        assert failed() == {"not_given"}
        assert read == []
        drawn.replace(path)
        await until(lambda: not failed())
        assert read == [named]
        assert secrets.in_force == secret
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
