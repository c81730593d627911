"""Promises of the probes: each dependency's own words for what is wrong, and failing closed."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import resource
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry

from tests.harness.committee import HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.errors import AdmissionError, StorageError
from zipnet.node import probe_disk
from zipnet.node.breakers import Breakers
from zipnet.node.clock_watch import judge_clock
from zipnet.node.mesh import CommitteeMesh
from zipnet.node.probe_capability import CapabilityProbe
from zipnet.node.probe_descriptor import DescriptorProbe
from zipnet.node.probe_disk import DISK_FULL_BYTES, DISK_LOW_BYTES, PROBE_FILE, DiskProbe
from zipnet.node.probe_entropy import EntropyProbe
from zipnet.node.probe_keys import KeyAgeProbe
from zipnet.node.probe_ledger import LedgerProbe
from zipnet.node.probe_version import compare_versions, judge_versions
from zipnet.node.probes import PeerProbe, watch_dependencies
from zipnet.node.record_keeper import RecordKeeper
from zipnet.node.restarts import count_start
from zipnet.node.server_health import ServerHealth
from zipnet.observe.health import HOLDS, FailedCondition, Finding, Health, Level, degraded, failed
from zipnet.observe.metrics import NodeMetrics
from zipnet.storage.records import RecordLog
from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _metrics() -> NodeMetrics:
    return NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")


def _value(metrics: NodeMetrics, name: str, **labels: str) -> float | None:
    where = {"zipnet_instance": "acme.test", "role": "server", **labels}
    return metrics.registry.get_sample_value(name, where)


# -- running probes -----------------------------------------------------------------------------


@dataclass
class _Scripted:
    act: Callable[[], Finding]
    name: str = "thing"
    every_s: float = 0.001

    async def look(self) -> Finding:
        await asyncio.sleep(0)
        return self.act()


async def _watched(probe: _Scripted, until: Callable[[Health], bool]) -> Health:
    health = Health([probe.name])
    watching = asyncio.create_task(watch_dependencies([probe], health))
    async with asyncio.timeout(10):
        while not until(health):  # noqa: ASYNC110 - readiness has no event for each report
            await asyncio.sleep(0.001)
    watching.cancel()
    await asyncio.wait({watching})
    return health


async def test_a_probe_that_breaks_leaves_its_dependency_failed_and_goes_on() -> None:
    results: Iterator[Finding | OSError] = iter([OSError("x")])

    def act() -> Finding:
        result = next(results, HOLDS)
        if isinstance(result, OSError):
            raise result
        return result

    seen: list[str] = []

    def until(health: Health) -> bool:
        seen.extend(item.reason for item in health.failed())
        return health.ready()

    await _watched(_Scripted(act), until)
    assert seen[0] == "starting"
    assert "probe_failed" in seen


async def test_what_a_probe_finds_is_what_readiness_says() -> None:
    health = await _watched(
        _Scripted(lambda: failed("no_room")), lambda health: health.failed()[0].reason != "starting"
    )
    assert health.failed() == [FailedCondition("thing", "no_room")]


# -- peers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "up", "finding"),
    [
        ((), (), HOLDS),
        ((1, 2), (1, 2), HOLDS),
        ((1, 2), (1,), degraded("server_2_unreachable")),
        ((1, 2), (), failed("no_majority")),
        ((1, 2, 3), (1,), failed("no_majority")),
        ((1, 2, 3, 4), (1, 4), degraded("server_2_unreachable")),
    ],
)
async def test_missing_peers_are_named_and_a_missing_majority_is_fatal(
    others: tuple[int, ...], up: tuple[int, ...], finding: Finding
) -> None:
    mesh = SimpleNamespace(members=others, connected=lambda: frozenset(up))
    assert await PeerProbe(cast("Any", mesh)).look() == finding


# -- disk ---------------------------------------------------------------------------------------


@contextmanager
def _room(monkeypatch: pytest.MonkeyPatch, free: int, inodes: int = 10**6) -> Iterator[None]:
    room = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=10**7, f_favail=inodes)
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _: room)
        yield


async def test_a_disk_that_takes_a_block_holds_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    metrics = _metrics()
    probe = DiskProbe(tmp_path, metrics)
    assert await probe.look() == HOLDS
    assert (_value(metrics, "zipnet_disk_free_bytes") or 0) > DISK_LOW_BYTES
    assert _value(metrics, "zipnet_disk_fsync_duration_seconds_count") == 1
    assert (tmp_path / PROBE_FILE).stat().st_size == 0
    probe.close()
    assert not (tmp_path / PROBE_FILE).exists()


@pytest.mark.parametrize(
    ("free", "inodes", "finding"),
    [
        (DISK_LOW_BYTES, 10**6, HOLDS),
        (DISK_LOW_BYTES - 4096, 10**6, degraded("disk_low")),
        (DISK_FULL_BYTES - 4096, 10**6, failed("disk_full")),
        (1 << 40, 900, degraded("disk_low")),
        (1 << 40, 9, failed("disk_full")),
    ],
)
async def test_room_is_judged_before_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, finding: Finding
) -> None:
    with _room(monkeypatch, free, inodes):
        assert await DiskProbe(tmp_path, _metrics()).look() == finding


async def test_a_write_that_fails_is_named_counted_and_tried_again(tmp_path: Path) -> None:
    metrics = _metrics()
    probe = DiskProbe(tmp_path, metrics)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert await probe.look() == failed("file_too_large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert _value(metrics, "zipnet_wal_fsync_fail_total") == 1
    assert await probe.look() == HOLDS


async def test_a_disk_that_does_not_answer_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stuck(_: int) -> None:
        nonlocal calls
        calls += 1
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(30)

    monkeypatch.setattr(probe_disk, "_STUCK_S", 0.05)
    monkeypatch.setattr(os, "fsync", stuck)
    probe = DiskProbe(tmp_path, _metrics())
    assert await probe.look() == failed("fsync_stuck")
    assert await probe.look() == failed("fsync_stuck")
    assert calls == 1
    released.set()
    monkeypatch.setattr(probe_disk, "_STUCK_S", 10.0)
    assert (await probe.look()).level is not Level.FAILED


async def test_an_error_of_the_disk_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    assert await DiskProbe(tmp_path, _metrics()).look() == failed("io_error")


async def test_a_disk_that_lets_a_server_wait_is_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_disk, "_SLOW_S", -1.0)
    assert await DiskProbe(tmp_path, _metrics()).look() == degraded("fsync_slow")


# -- entropy ------------------------------------------------------------------------------------


async def test_the_kernels_own_generator_holds() -> None:
    probe = EntropyProbe()
    assert [await probe.look() for _ in range(20)] == [HOLDS] * 20


@pytest.mark.requirement("A2")
async def test_a_generator_that_is_not_seeded_low_or_repeating_is_refused(tmp_path: Path) -> None:
    counted = tmp_path / "entropy_avail"
    counted.write_text("127\n")
    assert await EntropyProbe(counted=counted).look() == failed("entropy_low")
    counted.write_text("128\n")
    assert await EntropyProbe(counted=counted).look() == HOLDS

    def unseeded() -> bytes:
        raise BlockingIOError

    assert await EntropyProbe(unseeded).look() == failed("entropy_not_seeded")
    assert await EntropyProbe(lambda: bytes(32)).look() == failed("entropy_repeats")
    draws = iter([b"a", b"b", b"c", b"a"])
    resumed = EntropyProbe(lambda: next(draws))
    assert [await resumed.look(), await resumed.look()] == [HOLDS, failed("entropy_repeats")]


# -- ledger -------------------------------------------------------------------------------------


async def test_a_log_that_stays_behind_degrades_and_then_fails() -> None:
    now, sealed = 0.0, 0
    keeper = SimpleNamespace(first_sequence=0, next_sequence=0)
    probe = LedgerProbe(
        cast("Any", keeper),
        cast("Any", lambda: None),
        lambda: sealed,
        _metrics(),
        monotonic=lambda: now,
    )
    assert await probe.look() == HOLDS
    sealed = 1
    now = 1.0
    assert await probe.look() == HOLDS
    now = 2.5
    assert await probe.look() == degraded("records_behind")
    now = 10.5
    assert await probe.look() == failed("records_behind")
    sealed = 0
    assert await probe.look() == HOLDS


async def test_a_record_that_cannot_be_read_back_is_damage() -> None:
    async def read(_from: int, _limit: int) -> list[bytes]:
        raise StorageError("a record does not match its checksum")

    metrics = _metrics()
    keeper = SimpleNamespace(first_sequence=0, next_sequence=3, read=read)
    probe = LedgerProbe(cast("Any", keeper), cast("Any", lambda: None), lambda: 3, metrics)
    assert await probe.look() == failed("record_damaged")
    assert _value(metrics, "zipnet_integrity_fail_total", what="record") == 1


async def test_one_bit_that_turns_on_the_disk_is_found_and_gone_when_it_turns_back(
    tmp_path: Path,
) -> None:
    committee = HarnessCommittee()
    crowd = [HarnessPublisher(committee, f"client-{i}") for i in range(2)]
    for publisher in crowd:
        publisher.register()
    for _ in range(3):
        play_round(committee, crowd)
    with closing(RecordLog(tmp_path, group=committee.descriptor.group)) as log:
        for sequence, data in enumerate(committee.records):
            log.append(sequence, data)
        keeper = RecordKeeper(
            log, committee.descriptor, CommitteeMesh({}), on_stored=lambda _: None
        )
        turns = itertools.count()
        probe = LedgerProbe(
            keeper,
            lambda: committee.descriptor,
            lambda: 3,
            _metrics(),
            draw=lambda below: next(turns) % below,
        )
        assert [await probe.look() for _ in range(4)] == [HOLDS] * 4
        segment = tmp_path / f"records-{0:012d}.log"
        whole = segment.read_bytes()
        middle = len(whole) // 2  # in the second record of three: found when its turn comes
        with segment.open("r+b") as file:
            file.seek(middle)
            file.write(bytes([whole[middle] ^ 1]))
        looks = [await probe.look() for _ in range(3)]
        assert failed("record_damaged") in looks
        with segment.open("r+b") as file:
            file.write(whole)
        assert [await probe.look() for _ in range(3)] == [HOLDS] * 3


# -- who is let in ---------------------------------------------------------------------------------


@pytest.mark.requirement("A16")
@pytest.mark.parametrize("condition", ["disk", "entropy", "ledger"])
def test_no_client_is_let_in_while_what_it_needs_is_broken(condition: str) -> None:
    health = Health([condition])
    parts = SimpleNamespace(metrics=_metrics())
    looking = ServerHealth(
        cast("Any", parts),
        health,
        state=None,
        monotonic=lambda: 0.0,
        is_revoked=lambda: False,
        breakers=Breakers(parts.metrics),
    )
    client, reader = (cast("Any", SimpleNamespace(role=r)) for r in (Role.CLIENT, Role.READER))
    assert looking.refusal(client) is None  # not looked at yet: the other rules hold it back
    health.report(condition, degraded("not_well"))
    assert looking.refusal(client) is None
    health.report("peers", failed("no_majority"))
    assert looking.refusal(client) is None
    health.report(condition, failed("broken"))
    refused = looking.refusal(client)
    assert isinstance(refused, AdmissionError)
    assert (refused.code, refused.retry_after) == ("not_ready", 2.0)
    assert looking.refusal(reader) is None
    health.report(condition, HOLDS)
    assert looking.refusal(client) is None


# -- versions, descriptor, clock -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "theirs", "level"),
    [
        ("1.4.2", "1.4.2", Level.OK),
        ("1.4.2", "1.4.9", Level.DEGRADED),
        ("1.4.2", "1.5.0", Level.DEGRADED),
        ("1.4.2", "1.3.0rc1", Level.DEGRADED),
        ("1.4.2", "1.6.0", Level.FAILED),
        ("1.4.2", "2.4.2", Level.FAILED),
        ("0.1.0", "unknown", Level.FAILED),
        ("unknown", "unknown", Level.OK),
    ],
)
def test_versions_go_together_with_a_skew_of_one(own: str, theirs: str, level: Level) -> None:
    assert compare_versions(own, theirs) is level
    assert compare_versions(theirs, own) is level


def test_a_minority_with_another_version_is_at_fault_itself() -> None:
    ok, near, far = Level.OK, Level.DEGRADED, Level.FAILED
    assert judge_versions([]) == HOLDS
    assert judge_versions([ok, ok]) == HOLDS
    assert judge_versions([ok, near]) == degraded("version_differs")
    assert judge_versions([ok, far]) == degraded("version_differs")
    assert judge_versions([far, far, ok]) == failed("version_unsupported")


async def test_a_descriptor_warns_before_it_ends() -> None:
    begins = datetime(2030, 1, 1, tzinfo=UTC)
    descriptor = cast("Any", SimpleNamespace(not_before=begins, not_after=begins + timedelta(90)))
    metrics, now = _metrics(), begins
    probe = DescriptorProbe(lambda: descriptor, metrics, lambda: now.timestamp())  # noqa: PLW0108
    assert await probe.look() == HOLDS
    now = begins + timedelta(84)
    assert await probe.look() == degraded("descriptor_expiring")
    now = begins + timedelta(90)
    assert await probe.look() == failed("descriptor_expired")
    ends = _value(metrics, "zipnet_descriptor_expiry_timestamp_seconds")
    assert ends == (begins + timedelta(90)).timestamp()


@pytest.mark.requirement("L4")
async def test_keys_warn_before_they_are_overdue_and_never_stop_a_node() -> None:
    committee = HarnessCommittee()
    begins = committee.descriptor.descriptor.not_before
    metrics, now = _metrics(), begins
    peer = committee.descriptor.descriptor.servers[0].peer_id
    probe = KeyAgeProbe(lambda: committee.descriptor, peer, metrics, lambda: now.timestamp())  # noqa: PLW0108 - now changes
    assert await probe.look() == HOLDS
    now = begins + timedelta(77)
    assert await probe.look() == degraded("key_due")
    now = begins + timedelta(90)
    assert await probe.look() == degraded("key_overdue")
    for key in ("identity", "committee-secret", "descriptor-key"):
        due = _value(metrics, "zipnet_key_expiry_timestamp_seconds", key=key)
        assert due == (begins + timedelta(90)).timestamp()


async def test_a_capability_warns_before_it_ends() -> None:
    now, expires_s = 0.0, None
    probe = CapabilityProbe(lambda: expires_s, lambda: now)
    assert await probe.look() == HOLDS
    expires_s = 1000
    assert await probe.look() == HOLDS
    now = 500.0
    assert await probe.look() == degraded("capability_expiring")
    now = 1000.0
    assert await probe.look() == failed("capability_expired")


def test_a_clock_degrades_before_it_fails() -> None:
    assert judge_clock([(0.4, 0.0), (-0.4, 0.0)]) == HOLDS
    assert judge_clock([(2.0, 0.1), (2.0, 0.1)]) == degraded("clock_drifts")
    assert judge_clock([(6.0, 0.1), (6.0, 0.1)]) == failed("clock_skew")
    assert judge_clock([(6.0, 0.1), (0.0, 0.1)]) == HOLDS


def test_starts_are_counted_and_a_file_that_is_none_is_no_reason_not_to_start(
    tmp_path: Path,
) -> None:
    assert [count_start(tmp_path) for _ in range(3)] == [0, 1, 2]
    (tmp_path / "starts").write_text("rubbish")
    assert [count_start(tmp_path) for _ in range(2)] == [0, 1]
    assert count_start(tmp_path / "missing") == 0


def test_the_operators_page_names_every_dependency_and_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "health.md").read_text(encoding="utf-8")
    folder = Path(probe_disk.__file__).parent
    modules = [*folder.glob("probe*.py"), folder / "clock_watch.py", folder / "attestation.py"]
    source = "".join(module.read_text(encoding="utf-8") for module in modules)
    names = set(re.findall(r'^    name = "(\w+)"', source, re.MULTILINE))
    reasons = set(re.findall(r'(?:failed|degraded)\("(\w+)"\)', source))
    assert len(names) >= 8
    assert len(reasons) >= 15
    assert [word for word in sorted(names | reasons) if f"`{word}`" not in page] == []
