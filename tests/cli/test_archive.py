"""`zipnet archive`: records pulled from real servers, proved and restored without them."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher, play_round
from tests.harness.succession import renewed, successor_of
from tests.unit.protocol.test_record import COMMITTEE, chain, under
from zipnet.cli import run
from zipnet.errors import StorageError, VerificationError
from zipnet.host.loopback import free_ports
from zipnet.ledger.checkpoint import (
    LogCheckpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    origin_of,
    sign_checkpoint,
)
from zipnet.ledger.merkle import leaf_hash, root_of
from zipnet.ledger.note import NoteSignature
from zipnet.ledger.ranges import RangeHead, RangeItem, RangeTree, write_range
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.succession import succeed
from zipnet.sdk import Reader
from zipnet.sdk.archive import Archive, verify_range
from zipnet.settings.descriptorfile import NodeDraft, compose_successor
from zipnet.settings.values import Endpoint
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from collections.abc import Sequence


def _crowd(committee: HarnessCommittee) -> list[HarnessPublisher]:
    crowd = [HarnessPublisher(committee, f"client-{i}") for i in range(3)]
    for publisher in crowd:
        publisher.register()
    return crowd


def _play(committee: HarnessCommittee, crowd: Sequence[HarnessPublisher], rounds: int) -> None:
    for _ in range(rounds):
        play_round(committee, crowd)


@pytest.fixture
def committee(tmp_path: Path) -> HarnessCommittee:
    """A committee with five records; the first client said something."""
    committee = HarnessCommittee()
    crowd = _crowd(committee)
    crowd[0].queue(b"for the archive")
    _play(committee, crowd, 5)
    (tmp_path / "d.toml").write_bytes(committee.descriptor_bytes)
    return committee


@pytest.fixture
def folder(committee: HarnessCommittee, tmp_path: Path) -> Path:
    """An archive with these records."""
    path = tmp_path / "archive"
    path.mkdir()
    with closing(RecordLog(path, group=committee.descriptor.group)) as log:
        for sequence, record in enumerate(committee.records):
            log.append(sequence, record)
    return path


class Shell:
    """Runs ``zipnet archive`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], descriptor: Path) -> None:
        self._capsys, self._descriptor = capsys, descriptor

    def __call__(self, verb: str, *words: object) -> tuple[int, str, str]:
        code = run(["archive", verb, *map(str, words), "-d", str(self._descriptor)])
        out, err = self._capsys.readouterr()
        return code, out.strip(), err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    """The command line, for the fixtures' descriptor."""
    return Shell(capsys, tmp_path / "d.toml")


@pytest.mark.requirement("Z24")
async def test_pulls_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    async with FakeNetwork("tls") as network:
        committee, folder = network.committee, tmp_path / "archive"
        crowd = _crowd(committee)
        crowd[0].queue(b"first")
        _play(committee, crowd, 3)

        async def pull() -> int:
            with Archive(folder, committee.descriptor) as archive:
                async with Reader(
                    committee.descriptor, transport="tls", resume=archive.bookmark, follow=False
                ) as reader:
                    return await archive.pull(reader)

        assert await pull() == 3
        assert await pull() == 0
        _play(committee, crowd, 4)
        assert await pull() == 4
        with Archive(folder, committee.descriptor, readonly=True) as archive:
            assert archive.verify().size == len(archive) == 7
            assert archive.head == committee.verified[-1].hash


async def _pull(archive: Archive, network: FakeNetwork) -> list[bool]:
    async with Reader(
        network.committee.descriptor, transport="tls", resume=archive.bookmark, follow=False
    ) as reader:
        found = await reader.checkpoints()
        await archive.pull(reader)
        return [archive.hold_against(checkpoint) for checkpoint in found.values()]


@pytest.mark.requirement("L1")
async def test_checkpoints_of_all_servers_are_kept_as_one_note(
    tmp_path: Path, shell: Shell
) -> None:
    async with FakeNetwork("tls") as network:
        committee, folder = network.committee, tmp_path / "archive"
        (tmp_path / "d.toml").write_bytes(committee.descriptor_bytes)
        crowd = _crowd(committee)
        _play(committee, crowd, 3)
        await network.stop("s1")
        with Archive(folder, committee.descriptor) as archive:
            assert await _pull(archive, network) == [True, True]
            kept = archive.checkpoint
            assert kept is not None
            assert kept.checkpoint.size == 3
            assert kept.servers == {0, 2}
            # A longer one takes its place, a shorter one does not.
            _play(committee, crowd, 1)
            network.nodes["s0"].lie_about_log = lambda found: LogCheckpoint(
                found.origin, 2, root_of(r.hash for r in committee.verified[:2])
            )
            assert await _pull(archive, network) == [True, True]
            kept = archive.checkpoint
            assert kept is not None
            assert kept.checkpoint.size == 4
            assert kept.servers == {2}
            # One of what is not here yet proves nothing yet.
            network.nodes["s0"].lie_about_log = lambda found: LogCheckpoint(
                found.origin, 9, found.root
            )
            assert await _pull(archive, network) == [False, True]
    assert shell("verify", folder)[1].endswith("checkpoint at 4 signed by 2")
    code, out, _ = shell("tiles", folder, "--out", tmp_path / "log")
    assert code == 0
    assert len(out.splitlines()) == 3
    log = tmp_path / "log"
    assert (log / "checkpoint").read_bytes() == (folder / "checkpoint").read_bytes()
    hashes = (log / "tile/0/000.p/4").read_bytes()
    assert hashes[:32] == leaf_hash(committee.verified[0].hash)


async def test_a_server_that_signs_another_log_is_named_with_a_proof(tmp_path: Path) -> None:
    async with FakeNetwork("tls") as network:
        committee, folder = network.committee, tmp_path / "archive"
        _play(committee, _crowd(committee), 3)
        network.nodes["s1"].lie_about_log = lambda found: LogCheckpoint(found.origin, 2, bytes(32))
        with Archive(folder, committee.descriptor) as archive:
            with pytest.raises(VerificationError, match="server 1 signed a checkpoint of another"):
                await _pull(archive, network)
            assert archive.checkpoint is not None
            assert archive.checkpoint.servers == {0}
        (proof,) = folder.glob("contradiction-*.note")
        found = open_checkpoint(proof.read_bytes(), committee.descriptor)
        assert found.servers == {1}


async def test_servers_that_tell_another_story_than_before_are_refused(
    committee: HarnessCommittee, folder: Path
) -> None:
    async with FakeNetwork("tls") as network:  # the same keys, another log
        crowd = _crowd(network.committee)
        _play(network.committee, crowd, 7)
        assert network.committee.descriptor.group == committee.descriptor.group
        with Archive(folder, network.committee.descriptor) as archive:
            async with Reader(
                network.committee.descriptor, transport="tls", resume=archive.bookmark, follow=False
            ) as reader:
                with pytest.raises(VerificationError):
                    await archive.pull(reader)
            assert len(archive) == 5


@pytest.mark.requirement("L12")
def test_a_range_proves_itself_and_restores_an_archive(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    code, said, _ = shell("verify", folder)
    assert code == 0
    assert said.startswith("archive ok: 5:")
    low, high, again = tmp_path / "low", tmp_path / "high", tmp_path / "again"
    assert shell("export", folder, "--out", low, "--limit", 2)[0] == 0
    assert shell("export", folder, "--out", high, "--from", 1)[0] == 0
    assert shell("verify", high)[1] == "range ok: records 1 to 4"
    code, _, err = shell("restore", again, high)
    assert code == 1
    assert "0 is due" in err
    code, restored, _ = shell("restore", again, low, high)
    assert (code, restored.split(",")[0]) == (0, "restored 5 records")
    assert shell("verify", again)[1] == said


@pytest.mark.requirement("L12")
def test_a_log_that_did_not_grow_out_of_the_one_seen_before_is_named(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short"
    shell("export", folder, "--out", tmp_path / "r", "--limit", 3)
    shell("restore", short, tmp_path / "r")
    seen = shell("verify", short)[1].split()[2]
    assert seen.startswith("3:")
    assert shell("verify", folder, "--extends", seen)[0] == 0
    code, _, err = shell("verify", folder, "--extends", "3:" + "00" * 32)
    assert code == 1
    assert "first 3 records are not those seen before" in err
    code, _, err = shell("verify", short, "--extends", "5:" + "00" * 32)
    assert code == 1
    assert "3 records, not 5" in err


@pytest.mark.parametrize("what", ["record", "path", "root", "dropped", "swapped"])
def test_a_range_that_was_tampered_with_is_refused(
    what: str, committee: HarnessCommittee, folder: Path
) -> None:
    with Archive(folder, committee.descriptor, readonly=True) as archive:
        lines = [json.loads(line) for line in archive.export(0, 5)]
    version = lines.pop(1)  # the descriptor; put back below
    assert "descriptor" in version
    other = lines[2]["record"]
    if what == "record":
        lines[3]["record"] = other
    elif what == "path":
        lines[3]["path"][0] = "11" * 32
    elif what == "root":
        lines[0]["root"] = "11" * 32
    elif what == "dropped":  # as if record 2 never was
        lines[0] |= {"count": 4}
        del lines[3]
        for sequence, line in enumerate(lines[1:]):
            line["sequence"] = sequence
    else:
        lines[2]["record"], lines[3]["record"] = lines[3]["record"], lines[2]["record"]
    lines.insert(1, version)
    with pytest.raises(VerificationError):
        list(verify_range((json.dumps(line).encode() for line in lines), committee.descriptor))


def test_a_flipped_byte_on_disk_is_named(shell: Shell, folder: Path) -> None:
    (segment,) = folder.glob("records-*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    code, _, err = shell("verify", folder)
    assert code != 0
    assert "record" in err


def test_an_archive_is_judged_by_the_descriptor_at_the_time_that_is_named(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    """An instance ends, and what was signed while it lived can be verified all the same."""
    valid, expired = ("--at", "2099-12-31T23:59:59Z"), ("--at", "2100-01-01")
    for words in (
        ("verify", folder),
        ("export", folder, "--out", tmp_path / "range"),
        ("verify", tmp_path / "range"),
        ("restore", tmp_path / "again", tmp_path / "range"),
    ):
        code, _, err = shell(*map(str, words), *expired)
        assert code == 2
        assert "descriptor expired" in err
        assert shell(*map(str, words), *valid)[0] == 0


def test_a_full_disk_leaves_no_part_of_a_range(shell: Shell, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "range"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code, _, err = shell("export", folder, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, out.exists()) == (2, False), err
    assert "File too large" in err
    assert shell("export", folder, "--out", out)[0] == 0, "nothing is in the way of another try"


def test_only_one_process_writes_into_an_archive(committee: HarnessCommittee, folder: Path) -> None:
    with Archive(folder, committee.descriptor):
        with pytest.raises(StorageError, match="another process"):
            Archive(folder, committee.descriptor)
        with Archive(folder, committee.descriptor, readonly=True) as reading:
            assert len(reading) == 5
    Archive(folder, committee.descriptor).__exit__(None, None, None)


def test_records_that_others_signed_are_refused(folder: Path) -> None:
    stranger = HarnessCommittee(seed=2)
    with pytest.raises(VerificationError):
        Archive(folder, stranger.descriptor)


@pytest.mark.usefixtures("committee")
def test_what_cannot_be_used_is_one_line_and_exit_2(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    for verb, *words in (
        ("verify", tmp_path / "nothing"),
        ("export", folder, "--out", tmp_path / "there"),
        ("tiles", folder, "--out", tmp_path / "there"),
        ("tiles", folder, "--out", tmp_path / "log"),  # no checkpoint yet
        ("export", folder),
        ("export", folder, "--out", tmp_path / "x", "--from", 5),
        ("pull", folder, "--every", "soon"),
        ("verify", folder, "--extends", "much"),
        ("verify", folder, "--extends", "3:abcd"),  # cut short in copying: accuses nobody
        ("verify", folder, "--extends", "3:" + "00" * 33),
        ("pull", tmp_path / "there" / "archive"),
        ("restore", tmp_path / "there" / "archive", tmp_path / "nothing"),
        ("restore", folder, tmp_path / "nothing"),
    ):
        code, out, err = shell(verb, *words)
        assert (code, out) == (2, ""), (verb, words, err)
        assert len(err.splitlines()) == 1


@pytest.mark.requirement("Z24")
def test_an_archive_opens_with_a_later_version_than_its_records_are_of(
    committee: HarnessCommittee, folder: Path
) -> None:
    second = successor_of(committee.descriptor, 1, make_identity("newcomer"), committee.operator)
    third = successor_of(second, 0, make_identity("third"), committee.operator)
    with Archive(folder, committee.descriptor):
        pass  # what a pull with the first version's file leaves behind
    # Its owner has nothing but the operator's present file now.
    with Archive(folder, replace(second, earlier=()), readonly=True) as archive:
        assert archive.verify().size == 5
    with pytest.raises(VerificationError) as caught:
        Archive(folder, replace(third, earlier=()), readonly=True)
    assert "zipnet archive pull" in (caught.value.hint or "")
    with Archive(folder, third) as archive:  # with the versions between, as a pull has asked for
        assert archive.verify().size == 5
    with Archive(folder, replace(third, earlier=()), readonly=True) as archive:
        assert archive.verify().size == 5


async def test_a_pull_asks_for_the_versions_between_its_archive_and_its_file(
    tmp_path: Path,
) -> None:
    async with FakeNetwork("tls") as network:
        committee, folder = network.committee, tmp_path / "archive"
        _play(committee, _crowd(committee), 3)
        with Archive(folder, committee.descriptor) as archive:
            await _pull(archive, network)
        second = renewed(committee.descriptor, committee.operator)
        third = renewed(second, committee.operator)
        for node in network.nodes.values():
            node.versions = third
        alone = replace(third, earlier=())
        async with Reader(alone, transport="tls", follow=False) as reader:
            known = await reader.with_earlier()
        assert known == third
        with Archive(folder, known) as archive:
            assert archive.verify().size == 3


def test_what_a_server_adds_to_its_checkpoint_does_not_spoil_the_one_that_is_kept(
    committee: HarnessCommittee, folder: Path
) -> None:
    descriptor = committee.descriptor
    hashes = [record.hash for record in committee.verified]
    log = LogCheckpoint(origin_of(descriptor), len(hashes), root_of(hashes))

    def signed(server: int, *more: NoteSignature) -> VerifiedCheckpoint:
        identity = committee.identities[server]
        note = sign_checkpoint(log, ServerIndex(server), identity)
        return open_checkpoint(note.merged(more).encode(), descriptor)

    stuffing = [NoteSignature("witness", bytes([at]) * 4, bytes(64)) for at in range(60)]
    with Archive(folder, descriptor) as archive:
        assert archive.hold_against(signed(1, *stuffing))
        # A signature that is hedged is another one each time.
        for _ in range(40):
            assert archive.hold_against(signed(0))
        assert archive.hold_against(signed(2))
        kept = archive.checkpoint
    assert kept is not None
    assert kept.servers == {0, 1, 2}
    assert len(kept.note.signatures) == 6


@pytest.mark.parametrize("version", [1, 2])
def test_nothing_of_an_older_version_extends_an_archive(tmp_path: Path, version: int) -> None:
    """Whoever has the keys of servers that were replaced cannot continue a log with them."""
    first, second = chain(2)
    first = under(first, 2, None)
    second = under(second, version, first)
    tree = RangeTree([first.hash, second.hash])
    head = RangeHead(COMMITTEE.descriptor.group, 0, 2, 2, tree.root())
    items = [
        RangeItem(at, record.record.encode(), tree.path(at))
        for at, record in enumerate((first, second))
    ]
    with Archive(tmp_path / "archive", COMMITTEE.descriptor) as archive:
        if version == 2:
            assert archive.restore(write_range(head, items)) == 2
            return
        with pytest.raises(VerificationError, match="version 1 after version 2"):
            archive.restore(write_range(head, items))
        assert len(archive) == 1


async def test_a_pull_goes_where_the_archive_knows_the_servers_to_be_by_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, folder = FakeNetwork("tls"), tmp_path / "archive"
    committee = network.committee
    first = committee.descriptor
    ports = free_ports(3)
    drafts = [
        replace(NodeDraft.of(node), endpoint=Endpoint("127.0.0.1", port))
        for node, port in zip(first.descriptor.servers, ports, strict=True)
    ]
    text = compose_successor(first.descriptor, servers=drafts)
    second = succeed(first, sign_descriptor(text, committee.operator))
    with Archive(folder, second):
        pass  # an earlier pull heard of it
    (tmp_path / "d.toml").write_bytes(committee.descriptor_bytes)
    network.ports |= {f"s{seat}": port for seat, port in enumerate(ports)}
    async with network:
        _play(committee, _crowd(committee), 2)
        line = ["archive", "pull", str(folder), "-d", str(tmp_path / "d.toml")]
        async with asyncio.timeout(30):
            code = await asyncio.to_thread(run, [*line, "--transport", "tls"])
    assert (code, capsys.readouterr().out.split(",")[0]) == (0, "archived 2 records")
