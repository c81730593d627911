"""Readiness of real processes: each dependency really broken is named, and so is its return."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tdx.emulator import Emulator, make_bundle
from tests.e2e.test_attested import Scene, quoting
from tests.harness.network import LiveNetwork, Node, wait_for
from tests.harness.small_disk import FORBIDDEN
from zipnet.node.probe_disk import DISK_FULL_BYTES, DISK_LOW_BYTES

pytestmark = pytest.mark.timeout(300)

DISK_BYTES = DISK_LOW_BYTES + (24 << 20)
DAY_S = 86400


@dataclass(frozen=True)
class Ready:
    """What ``/readyz`` of a node says."""

    status: int
    failed: dict[str, str]
    degraded: dict[str, str]
    dependencies: dict[str, str]


def ready_of(node: Node) -> Ready:
    status, text = node.http("/readyz")
    body = json.loads(text)
    assert body["ready"] == (status == 200)
    failed, degraded = (
        {item["condition"]: item["reason"] for item in body[key]} for key in ("failed", "degraded")
    )
    return Ready(status, failed, degraded, body["dependencies"])


def await_status(node: Node, status: int) -> None:
    wait_for(lambda: ready_of(node).status == status, f"{node.name} to answer {status}")


def await_reason(node: Node, condition: str, *reasons: str) -> None:
    """Wait until a dependency failed for one of these reasons; then the node is not ready."""
    wait_for(
        lambda: ready_of(node).failed.get(condition) in reasons,
        f"{node.name}: {condition} to fail for {reasons}, not {ready_of(node)}",
    )
    assert ready_of(node).status == 503
    assert not_ready_metric(node, *reasons)


def not_ready_metric(node: Node, *reasons: str) -> bool:
    _, text = node.http("/metrics")
    return any(
        line.startswith("zipnet_not_ready{") and f'reason="{reason}"' in line
        for line in text.splitlines()
        for reason in reasons
        if line.endswith(" 1.0")
    )


def fill(folder: Path, leave: int) -> None:
    """Fill a disk until ``leave`` bytes are free."""
    room = os.statvfs(folder)
    with (folder / "filler").open("ab") as file:
        size = file.tell()
        os.posix_fallocate(file.fileno(), size, room.f_bavail * room.f_frsize - leave)


class Troubles:
    """A network of three: s0 on a small disk, s1 troubled on demand, s2 ordinary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "troubles"
        self.folder.mkdir()
        self.flipped: int | None = None
        self.network = LiveNetwork(folder)
        self.small, self.troubled, self.other = self.network.server_nodes
        self.small.program = ("tests.harness.small_disk", "s0.state", str(DISK_BYTES))
        self.troubled.program = ("tests.harness.troubled", str(self.folder))

    def start(self) -> None:
        for node in self.network.nodes.values():
            node.start()
        wait_for(lambda: self.small.events("node_ready") or not self.small.is_running(), "s0")
        if not self.small.is_running() and self.small.process is not None:
            assert self.small.process.returncode == FORBIDDEN, self.small.err.read_text()
            pytest.skip("this kernel gives no mount namespace of its own")
        for node in self.network.server_nodes:
            await_status(node, 200)

    @property
    def disk(self) -> Path:
        inside = str(self.network.folder / "s0.state").lstrip("/")
        return Path(f"/proc/{self.small.pid}/root") / inside

    def set(self, name: str, content: str = "") -> None:
        (self.folder / name).write_text(content)

    def make_records(self) -> None:
        """Let clients come, wait for records, and let them go: nothing is sealed without them."""
        words = ("publish", "--descriptor", "d.toml", "--cover", "--quiet")
        covers = [self.network.spawn(f"cover-{index}", *words) for index in range(3)]
        wait_for(lambda: self.other.metric("zipnet_record_sequence") >= 1, "records")
        for cover in covers:
            cover.stop()
        said = [node.metric("zipnet_record_sequence") for node in self.network.server_nodes]
        wait_for(
            lambda: self.other.metric("zipnet_record_sequence") >= max(said), "the last record"
        )

    def flip_record(self) -> None:
        """Flip a bit in the newest record on the disk of s2; done again, the same bit."""
        segment = max((self.network.folder / "s2.state" / "records").glob("records-*.log"))
        with segment.open("r+b") as file:
            if self.flipped is None:
                self.flipped = file.seek(-100, os.SEEK_END)
            file.seek(self.flipped)
            byte = file.read(1)
            file.seek(self.flipped)
            file.write(bytes([byte[0] ^ 1]))

    def mend(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()


@pytest.mark.requirement("M7")
@pytest.mark.requirement("A2")
@pytest.mark.requirement("A16")
def test_each_dependency_that_breaks_is_named_and_so_is_its_return(tmp_path: Path) -> None:
    made = Troubles(tmp_path)
    network = made.network
    try:
        made.start()
        named = set(ready_of(made.small).dependencies)
        assert named >= {
            *("consensus", "committee_keys", "storage", "disk", "entropy", "ledger", "peers"),
            *("versions", "descriptor", "clock", "breakers"),
        }
        began = time.monotonic()

        # Everything but the peers at once: each has a name of its own.
        fill(made.disk, leave=DISK_LOW_BYTES - (8 << 20))
        made.set("skew", "2")
        made.set("version", "0.2.0")
        wait_for(lambda: ready_of(made.small).degraded.get("disk") == "disk_low", "a low disk")
        wait_for(lambda: ready_of(made.troubled).degraded.get("clock") == "clock_drifts", "a drift")
        wait_for(
            lambda: ready_of(made.troubled).degraded.get("versions") == "version_differs",
            "the version of one release on",
        )
        assert {ready_of(node).status for node in network.server_nodes} == {200}
        print(f"degraded, and still ready: {time.monotonic() - began:.1f} s")

        fill(made.disk, leave=DISK_FULL_BYTES // 2)
        made.set("skew", "60")
        made.set("version", "0.9.0")
        made.set("entropy")
        await_reason(made.small, "disk", "disk_full")
        await_reason(made.troubled, "entropy", "entropy_not_seeded")
        await_reason(made.troubled, "versions", "version_unsupported")
        await_reason(made.troubled, "clock", "clock_skew")
        assert not made.small.events("safe_mode_entered")
        print(f"not ready, each by name: {time.monotonic() - began:.1f} s")

        (made.disk / "filler").unlink()
        made.mend()
        for node in (made.small, made.troubled):
            await_status(node, 200)
        wait_for(lambda: not ready_of(made.troubled).degraded, "nothing to be degraded either")
        print(f"ready again: {time.monotonic() - began:.1f} s")

        made.make_records()
        made.flip_record()
        await_reason(made.other, "ledger", "record_damaged")
        assert made.other.metric("zipnet_integrity_fail_total") >= 1
        made.flip_record()
        wait_for(lambda: ready_of(made.other).dependencies["ledger"] == "ok", "a sound log")
        print(f"a record damaged and whole again: {time.monotonic() - began:.1f} s")

        made.other.kill()
        wait_for(
            lambda: ready_of(made.small).degraded.get("peers") == "server_2_unreachable",
            "the missing peer",
        )
        await_reason(made.small, "server_2", "waiting_for_server_2")
        made.troubled.kill()
        await_reason(made.small, "peers", "no_majority")
        made.troubled.start()
        made.other.start()
        for node in network.server_nodes:
            await_status(node, 200)
        print(f"peers gone and back: {time.monotonic() - began:.1f} s")
        assert made.other.metric("zipnet_service_restarts_total") == 1
    finally:
        network.close()


@pytest.mark.requirement("Z17")
def test_collateral_that_lapses_is_announced_then_named_and_fresh_one_mends_it(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    node = scene.network.nodes["s0"]
    with quoting(scene.emulator, tmp_path / "qgs.sock"):
        try:
            node.start()
            wait_for(lambda: ready_of(node).dependencies.get("attestation") == "ok", "a first look")
            write_collateral(scene, age_days=27)
            wait_for(
                lambda: ready_of(node).degraded.get("attestation") == "collateral_expiring",
                "the warning",
            )
            left_s = node.metric("zipnet_collateral_expiry_timestamp_seconds") - time.time()
            assert 0 < left_s < 3 * DAY_S
            write_collateral(scene, age_days=40)
            await_reason(node, "attestation", "tdx_tcb_info_time", "tdx_root_crl_time",
                         "tdx_pck_crl_time", "tdx_qe_identity_time")  # fmt: skip
            write_collateral(scene, age_days=0)
            wait_for(
                lambda: ready_of(node).dependencies.get("attestation") == "ok", "fresh collateral"
            )
        finally:
            scene.network.close()


def write_collateral(scene: Scene, age_days: int) -> None:
    """Write the machine's collateral as it was issued some days ago."""
    emulator: Emulator = scene.emulator
    now, emulator.now = emulator.now, emulator.now - age_days * DAY_S
    bundle = make_bundle(emulator.recipe())
    emulator.now = now
    fresh = scene.collateral.with_suffix(".new")
    fresh.write_text(bundle.to_json())
    fresh.replace(scene.collateral)
