"""Where a server begins that was killed, or away, while versions of the descriptor came."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_network import FakeNetwork
from tests.harness.succession import renewed, successor_of
from zipnet.errors import ConfigError, PolicyMismatchError, StorageError
from zipnet.node.committee_secret import committee_secrets_of, require_committee_secret
from zipnet.node.server_start import identify
from zipnet.node.server_state import open_in_memory
from zipnet.node.server_succession import settings_in_force
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.ids import committee_fingerprint, derive
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.protocol.succession import succeed
from zipnet.settings import load_server
from zipnet.settings.descriptorfile import compose_successor
from zipnet.storage.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.settings import ServerSettings

NEXT_SECRET = derive("test-next-committee-secret")


def write_secret(path: Path, secret: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_text(format_secret_text(Secret(secret)) + "\n")
    return path


def settings_of(
    folder: Path,
    label: str,
    given: TrustedDescriptor,
    committee: bytes = derive("test-committee-secret"),
) -> ServerSettings:
    """The settings of the server with a label's identity, as its operator's files say."""
    (folder / "d.toml").write_bytes(given.descriptor.file)
    secret = derive("test-identity", label.encode(), bytes([1]))
    flags = {
        "instance": given.descriptor.name,
        "descriptor": folder / "d.toml",
        "secret_file": write_secret(folder / "own.secret", secret),
        "committee_secret_file": write_secret(folder / "committee.secret", committee),
        "state": folder / "state",
    }
    return load_server(flags, {}, now=datetime(2030, 1, 1, tzinfo=UTC))


async def begin(
    settings: ServerSettings, journal: Path, kept: Sequence[TrustedDescriptor]
) -> list[int]:
    """Begin where so much is kept; returns the versions kept then."""
    terms, transports = identify(settings, None, os.urandom(16))
    with closing(FileJournal(journal, identity=settings.identity.peer_id)) as versions:
        for item in kept:
            versions.append(item.descriptor.file)
        state = replace(open_in_memory(settings), versions=versions)
        in_force = await settings_in_force(settings, state, terms, transports[1])
        line = (*in_force.descriptor.earlier, in_force.descriptor)
        files = [item.descriptor.file for item in line]
        assert list(versions.entries()) == files
        return [item.version for item in line]


async def test_a_newcomer_killed_over_the_versions_before_its_own_begins_again(
    tmp_path: Path,
) -> None:
    network = FakeNetwork("tls")
    committee, first = network.committee, network.committee.descriptor
    second = renewed(first, committee.operator)
    third = successor_of(second, 1, make_identity("newcomer"), committee.operator)
    committee.descriptor = third  # adopted: the newcomer's certificate is let in
    async with network:
        for name in ("s0", "s2"):
            network.nodes[name].versions = third
        settings = settings_of(tmp_path, "newcomer", third)
        # Nothing, one or both of those before its own had reached the disk.
        for number in range(3):
            journal = tmp_path / f"{number}.journal"
            assert await begin(settings, journal, (first, second)[:number]) == [1, 2, 3]
        with pytest.raises(StorageError, match="not those of this instance"):
            await begin(settings, tmp_path / "journal", [second])


async def test_a_server_that_was_replaced_is_told_so_whatever_it_is_given(tmp_path: Path) -> None:
    committee = HarnessCommittee()
    second = successor_of(committee.descriptor, 1, make_identity("newcomer"), committee.operator)
    settings = settings_of(tmp_path, "server-1", committee.descriptor)
    with pytest.raises(ConfigError, match="another server in this one's place"):
        await begin(settings, tmp_path / "journal", [committee.descriptor, second])


@pytest.mark.requirement("Z6")
async def test_the_present_secret_and_file_are_enough_to_come_back_with(tmp_path: Path) -> None:
    committee = HarnessCommittee()
    first = committee.descriptor
    named = committee_fingerprint(Secret(NEXT_SECRET), first.descriptor.instance)
    text = compose_successor(first.descriptor, rotated_secret=named)
    second = succeed(first, sign_descriptor(text, committee.operator))
    third = renewed(second, committee.operator)
    settings = settings_of(tmp_path, "server-1", third, NEXT_SECRET)
    terms, _ = identify(settings, None, os.urandom(16))
    # It went by the first version when it was stopped.
    behind = replace(settings, descriptor=first)
    secrets = require_committee_secret(behind, terms, third)
    assert secrets.in_force is None, "it signs nothing before it hears of the version"
    assert [committee_fingerprint(one, first.descriptor.instance) for one in secrets.believed] == [
        named
    ]
    # A file that names another secret, or is older, is no excuse.
    for given in (first, renewed(first, committee.operator)):
        with pytest.raises(PolicyMismatchError, match="not the committee secret in force"):
            require_committee_secret(behind, terms, given)
    assert len(committee_secrets_of(settings)) == 1
