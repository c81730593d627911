"""A live network for end-to-end tests: real processes on 127.0.0.1, real files, real keys.

Processes are started with the project's own command line; everything they print goes to files in
the test's folder. Whoever makes a network closes it: every process is stopped and waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.committee import build_descriptor
from zipnet.host.loopback import free_ports
from zipnet.machines.guard import Released
from zipnet.protocol.attestation import ATTESTATION_OFF, AttestationTerms
from zipnet.protocol.descriptor import TrustedDescriptor, parse_descriptor, trust_descriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import derive
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.protocol.record import VerifiedRecord, decode_record, require_extends, verify_record
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.storage.journal import FileJournal
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LiveNetwork", "Node", "run_zipnet", "wait_for"]

INSTANCE = "harness.test"
DEADLINE_S = 90.0
_ROOT = Path(__file__).parents[2]
_PARAMS = RoundParams(num_slots=16, slot_bytes=256, min_participants=3)
_CADENCE = Cadence(round_period_ms=300, fold_deadline_ms=2000, round_deadline_ms=8000)


def wait_for(condition: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds; the deadline is generous, the poll is short."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(0.05)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without any zipnet setting."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
    return {**kept, **(extra or {})}


def run_zipnet(
    *arguments: str | Path,
    cwd: Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = DEADLINE_S,
) -> subprocess.CompletedProcess[str]:
    """Run one ``zipnet`` command to its end and return what it said."""
    return subprocess.run(
        [sys.executable, "-m", "zipnet", *map(str, arguments)],
        cwd=cwd,
        input=stdin or "",
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass
class Node:
    """One long-running process of the network."""

    name: str
    arguments: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    program: tuple[str, ...] = ("zipnet",)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """What it wrote to standard output since its last start."""
        return self.folder / f"{self.name}.{self.starts}.out"

    @property
    def err(self) -> Path:
        """What it wrote to standard error since its last start."""
        return self.folder / f"{self.name}.{self.starts}.err"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process."""
        self.starts += 1
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.program, *self.arguments],
                cwd=self.folder,
                env=clean_environment({"PYTHONPATH": str(_ROOT), **self.environment}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def events(self, event: str) -> list[dict[str, object]]:
        """Return the log lines with this event."""
        found: list[dict[str, object]] = []
        for line in self.out.read_text(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == event:
                    found.append(entry)
        return found

    def wait_ready(self) -> dict[str, object]:
        """Wait for the node's own word that it listens, and return that line."""
        wait_for(
            lambda: self.events("node_ready") or not self.is_running(), f"{self.name} to listen"
        )
        ready = self.events("node_ready")
        assert ready, f"{self.name} ended: {self.err.read_text()}"
        return ready[0]

    def http(self, path: str) -> tuple[int, str]:
        """Get a page of the node's health port."""
        changed = self.events("safe_mode_entered")
        port = (changed[0] if changed else self.wait_ready())["metrics_port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Return the sum of all series of a metric."""
        _, text = self.http("/metrics")
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith((f"{name}{{", f"{name} "))
        ]
        return sum(values)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, deadline_s: float = 20.0) -> int:
        """SIGTERM, then SIGKILL where that is not heard; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop on SIGTERM") from None


@dataclass
class LiveNetwork:
    """Servers and aggregators, ready to be started.

    Attributes:
        folder: Everything is in here.
        tree: Aggregator name → parent, None for the root.
        attestation: What the descriptor asks of platforms.
        platform: Environment by verb (``server``, …) that makes a process attest as it should.
        instance: Its name; each instance has a committee secret of its own.
    """

    folder: Path
    servers: int = 3
    tree: dict[str, str | None] = field(default_factory=lambda: {"root": None})
    params: RoundParams = _PARAMS
    cadence: Cadence = _CADENCE
    max_absent: int = 0
    attestation: AttestationTerms = ATTESTATION_OFF
    platform: dict[str, dict[str, str]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    others: list[Node] = field(default_factory=list)
    instance: str = INSTANCE

    def __post_init__(self) -> None:
        names = [f"s{i}" for i in range(self.servers)]
        identities = {name: self._make_secret(name) for name in (*names, *self.tree, "operator")}
        committee = Secret(derive("test-committee-secret", self.instance.encode()))
        self._write_secret("committee", committee)
        ports = dict(
            zip((*names, *self.tree), free_ports(self.servers + len(self.tree)), strict=True)
        )
        self.ports = ports
        data = build_descriptor(
            servers=[identities[name] for name in names],
            aggregators={name: (identities[name], parent) for name, parent in self.tree.items()},
            operator=identities["operator"],
            params=self.params,
            cadence=self.cadence,
            max_absent=self.max_absent,
            ports=ports,
            name=self.instance,
            committee=committee,
            attestation=self.attestation,
            # Yesterday: live nodes say it when their keys are old.
            not_before=datetime.now(UTC) - timedelta(days=1),
        )
        self.descriptor_file.write_bytes(data)
        self.descriptor: TrustedDescriptor = trust_descriptor(
            parse_descriptor(data), now=datetime.now(UTC)
        )
        for name in names:
            self._add(name, "server", "--committee-secret-file", "committee.secret")
            self.nodes[name].arguments += ["--state", f"{name}.state"]
        for name in self.tree:
            self._add(name, "aggregator")

    def _make_secret(self, name: str) -> Identity:
        secret = Secret(os.urandom(32))
        self._write_secret(name, secret)
        return Identity.from_secret(secret)

    def _write_secret(self, name: str, secret: Secret) -> None:
        path = self.folder / f"{name}.secret"
        path.write_text(format_secret_text(secret) + "\n")
        path.chmod(0o600)

    def _add(self, name: str, verb: str, *extra: str) -> None:
        arguments = [verb, "--descriptor", "d.toml", "--instance", self.instance]
        arguments += ["--secret-file", f"{name}.secret", *extra]
        environment = self.platform.get(verb, {})
        self.nodes[name] = Node(name, arguments, self.folder, environment=environment)

    def settings_file(self, name: str) -> Path:
        """Write the settings of a node as a file, for a process that runs several."""
        words = self.nodes[name].arguments[1:]
        given = dict(zip(words[::2], words[1::2], strict=True))
        lines = [
            f'{flag.removeprefix("--").replace("-", "_")} = "{self._absolute(flag, value)}"\n'
            for flag, value in given.items()
        ]
        path = self.folder / f"{name}.toml"
        path.write_text("".join(lines))
        return path

    def _absolute(self, flag: str, value: str) -> str:
        return value if flag == "--instance" else str(self.folder / value)

    @property
    def descriptor_file(self) -> Path:
        """The signed descriptor."""
        return self.folder / "d.toml"

    @property
    def server_nodes(self) -> list[Node]:
        """The servers, by index."""
        return [self.nodes[f"s{i}"] for i in range(self.servers)]

    def start(self) -> None:
        """Start every node and wait until all listen."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            node.wait_ready()

    def spawn(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> Node:
        """Start another long-running command that ends with the network."""
        platform = self.platform.get(arguments[0], {}) | (environment or {})
        node = Node(name, list(arguments), self.folder, environment=platform)
        self.others.append(node)
        node.start()
        return node

    def close(self) -> None:
        """Stop every process; complain about one that does not listen."""
        running = [node for node in (*self.others, *self.nodes.values()) if node.is_running()]
        for node in running:
            with suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGTERM)
        silent: list[str] = []
        for node in running:
            try:
                node.stop()
            except AssertionError:
                silent.append(node.name)
        assert not silent, f"did not stop on SIGTERM: {silent}"

    def leader(self) -> Node | None:
        """Return the server that leads now, if one does."""
        for node in self.server_nodes:
            if node.is_running() and node.metric("zipnet_consensus_leader") == 1:
                return node
        return None

    def records(self, name: str) -> list[VerifiedRecord]:
        """Verify a server's record log from disk, from its first record to its last."""
        log = RecordLog.open_readonly(
            self.folder / f"{name}.state" / "records", group=self.descriptor.group
        )
        found: list[VerifiedRecord] = []
        try:
            for data in log.read(0, log.next_sequence):
                record = verify_record(decode_record(data, self.params), self.descriptor)
                require_extends(record, found[-1] if found else None)
                found.append(record)
        finally:
            log.close()
        return found

    def releases(self, name: str) -> list[Released]:
        """Return what a stopped server's release journal says."""
        index = int(name.removeprefix("s"))
        journal = FileJournal(
            self.folder / f"{name}.state" / "releases.journal",
            identity=bytes(self.descriptor.committee[index].peer_id),
        )
        try:
            return [Released.decode(entry) for entry in journal.entries()]
        finally:
            journal.close()
