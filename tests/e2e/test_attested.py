"""A network whose every bond is gated by a quote: real processes, an emulated Intel."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tdx.emulator import Emulator, QuoteService
from tdx.policy import Policy
from tests.e2e.test_demo import run_demo
from tests.harness.attested import image
from tests.harness.network import LiveNetwork, run_zipnet, wait_for
from zipnet.protocol.attestation import AttestationMode, Gate, make_terms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

LIFETIME_S = 12
COVERS = 4


@pytest.mark.requirement("Z16")
@pytest.mark.requirement("D4")
def test_the_attested_demo_refuses_a_wrong_mrtd_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("one\ntwo\nthree\n", encoding="utf-8")
    done = run_demo("--messages", file, "--tdx", "emulated")
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    pattern = r"demo ok: published=3 recovered=3 rounds=\d+ verified=\d+ refused=1"
    assert re.fullmatch(pattern, last), last
    assert "EMULATED" in done.stdout
    assert "this must never be published" not in done.stdout


@contextmanager
def quoting(emulator: Emulator, socket: Path) -> Iterator[None]:
    """Answer quote requests on a Unix socket while the block runs."""
    with QuoteService(emulator, socket) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            yield
        finally:
            service.shutdown()
            thread.join()


class Scene:
    """An attested network in a folder, its emulator and the collateral on file."""

    def __init__(self, folder: Path) -> None:
        self.emulator = Emulator(now=int(time.time()))
        self.folder = folder
        self.collateral = folder / "collateral.json"
        self.collateral.write_text(self.emulator.bundle().to_json())
        terms = make_terms(
            AttestationMode.EMULATED,
            root_der=self.emulator.root_der,
            policies={gate: Policy().require_mrtd(image(gate.value)) for gate in Gate},
            lifetime_s=LIFETIME_S,
        )
        verbs = {"server": "committee", "aggregator": "aggregator", "publish": "client"}
        platform = {verb: self.platform(role) for verb, role in verbs.items()}
        self.network = LiveNetwork(folder, attestation=terms, platform=platform)

    def platform(self, runs: str, socket: str = "qgs.sock") -> dict[str, str]:
        """What makes a process attest as an image, over a socket of the folder."""
        return {
            "ZIPNET_TDX_SOURCE": "emulator",
            "ZIPNET_TDX_COLLATERAL": str(self.collateral),
            "ZIPNET_TDX_EMULATOR": socket,
            "ZIPNET_TDX_EMULATED_MRTD": image(runs).hex(),
        }

    def rejected(self, reason: str) -> float:
        """How often the servers refused for a reason, taken together."""
        pages = [node.http("/metrics")[1] for node in self.network.server_nodes]
        pattern = rf'^zipnet_rejected_total{{.*reason="{reason}".*}} (\S+)$'
        return sum(float(n) for page in pages for n in re.findall(pattern, page, re.MULTILINE))


@pytest.mark.requirement("Z9")
def test_bonds_are_renewed_while_rounds_go_on_and_a_client_that_lapses_is_retired(
    tmp_path: Path,
) -> None:
    """Evidence lives for twelve seconds here; the network lives for several of its lives."""
    scene = Scene(tmp_path)
    network = scene.network
    with quoting(scene.emulator, tmp_path / "qgs.sock"):
        try:
            network.start()
            posture = json.loads(network.nodes["s0"].http("/version")[1])
            assert posture["attestation"] == "emulated"
            assert posture["posture"] == "development"
            assert network.nodes["s0"].events("attestation_not_required")
            with quoting(scene.emulator, tmp_path / "own.sock"):
                cover = ("publish", "--descriptor", "d.toml", "--cover", "--quiet")
                for index in range(COVERS):
                    network.spawn(f"cover-{index}", *cover)
                network.spawn("lapsing", *cover, environment={"ZIPNET_TDX_EMULATOR": "own.sock"})
                size = "zipnet_client_registry_size"
                server = network.nodes["s0"]
                wait_for(lambda: server.metric(size) == COVERS + 1, "everybody to register")
            # From here on one client's machine makes no quotes any more.
            wait_for(lambda: server.metric(size) == COVERS, "the client to be retired")
            wait_for(lambda: scene.rejected("evidence_lapsed") >= 1, "the reason to be counted")
            began = time.time()
            lapsed = scene.rejected("evidence_lapsed")
            wait_for(lambda: time.time() > began + 1.5 * LIFETIME_S, "more than one life")
            wait_for(lambda: server.metric(size) == COVERS, "the others to be registered still")
            # A busy machine may make one of them late; all of them would be a broken renewal.
            assert scene.rejected("evidence_lapsed") < lapsed + COVERS * len(network.server_nodes)
            done = run_zipnet(
                "publish",
                *("--descriptor", "d.toml", "--message", "still here", "--timeout", "60s"),
                cwd=tmp_path,
                environment=scene.platform("client"),
            )
            assert done.returncode == 0, done.stderr
            participants = network.nodes["s0"].events("round_finalized")[-1]["participants"]
            assert isinstance(participants, int)
            assert participants >= COVERS
        finally:
            network.close()


def test_a_node_whose_evidence_would_be_refused_says_so_and_does_not_start(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    node = scene.network.nodes["s0"]
    with quoting(scene.emulator, tmp_path / "qgs.sock"):
        done = run_zipnet(
            *node.arguments, cwd=tmp_path, environment=scene.platform("something else")
        )
    assert done.returncode == 2
    assert "own evidence would be refused (tdx_mrtd)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s0.state").exists()


def test_production_refuses_an_emulated_descriptor(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    done = run_zipnet(
        *scene.network.nodes["s0"].arguments,
        "--profile",
        "production",
        cwd=tmp_path,
        environment=scene.platform("committee"),
    )
    assert done.returncode == 2
    assert "emulated, which production refuses" in done.stderr
