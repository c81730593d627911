"""The main job on one machine: a whole network of real processes, fed the lines of a text file.

Three committee servers, a tree of three aggregators and eight publishers talk over loopback
sockets. Each line of the file goes in through some publisher and must come out of a co-signed
record; afterwards the record logs of all three servers are verified again from disk, with the
descriptor alone.

Run it with ``make demo`` or ``python -m examples.demo [--messages FILE]``. Exit status 0 and the
line ``demo ok: …`` mean that nothing was lost; anything lost is named, with exit status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sim.cluster.emulation import Emulation
from zipnet.errors import ZipnetError
from zipnet.host.loopback import free_ports
from zipnet.machines.reader import Message, ReaderMachine, RecordArrived
from zipnet.protocol.descriptor import TrustedDescriptor, parse_descriptor, trust_descriptor
from zipnet.protocol.record import VerifiedRecord, decode_record, require_extends, verify_record
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INSTANCE = "demo.loopback"
SERVERS = 3
LEAVES = 2
PUBLISHERS = 8
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 10.0
ROUNDS_DEADLINE_S = 90.0
PER_MESSAGE_S = 3.0


class DemoError(Exception):
    """The demo cannot go on, or lost something."""


@dataclass
class Outcome:
    """What was published and what came back.

    Attributes:
        published: Lines that publishers hold a receipt for.
        recovered: Lines the reader printed from verified records.
        failed: What went wrong meanwhile.
        refused: Publishers the network refused for the platform they run on.
        progress: Notified whenever something was published or recovered.
    """

    published: int = 0
    recovered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused: int = 0
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self, recovered: str | None = None) -> None:
        """Count one receipt, or one recovered message."""
        async with self.progress:
            if recovered is None:
                self.published += 1
            else:
                self.recovered.append(recovered)
            self.progress.notify_all()

    async def reached(self, total: int) -> None:
        """Return once everything is published and recovered."""
        async with self.progress:
            await self.progress.wait_for(
                lambda: self.published >= total and len(self.recovered) >= total
            )


def say(text: str) -> None:
    """Tell the person at the terminal, at once."""
    print(text, flush=True)


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a UTF-8 text file.

    Raises:
        DemoError: When there is no such file, it is no UTF-8 text, or it has no lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DemoError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DemoError(f"{path} is not UTF-8 text") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DemoError(f"{path} has no lines to publish")
    return lines


class Network:
    """All processes of the demo and the folder they work in."""

    def __init__(self, folder: Path, *, emulated: bool = False) -> None:
        self.folder = folder
        self.emulation = Emulation(folder) if emulated else None
        self.descriptor = folder / "descriptor.toml"
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def command(self, *arguments: str) -> None:
        """Run one ``zipnet`` command to its end.

        Raises:
            DemoError: When it fails.
        """
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "zipnet", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"`zipnet {arguments[0]}` failed: {done.stderr.strip()}")

    async def start(
        self, name: str, *arguments: str, image: str | None = None
    ) -> asyncio.subprocess.Process:
        """Start one long-running process; its standard error goes to a file in the folder.

        Args:
            name: What the process is called here.
            arguments: Of the ``zipnet`` command.
            image: What it runs in an attested network, where that is not what it should run.
        """
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
        if self.emulation is not None:
            environment |= self.emulation.environment(arguments[0], image)
        with (self.folder / f"{name}.err").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "zipnet",
                *arguments,
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=4 * 1024 * 1024,
            )
        self.processes[name] = process
        return process

    def complaint(self, name: str) -> str:
        """Return the last thing a process said on standard error, or what ended it."""
        text = (self.folder / f"{name}.err").read_text(errors="replace").strip()
        if text:
            return text.splitlines()[-1]
        code = self.processes[name].returncode if name in self.processes else None
        return "it said nothing" if code is None or code >= 0 else f"killed by signal {-code}"

    async def stop_all(self) -> None:
        """Stop every process: politely first, then for good."""
        running = [p for p in self.processes.values() if p.returncode is None]
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await asyncio.gather(*(process.wait() for process in running))
        except TimeoutError:
            for process in running:
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in running))
        if self.emulation is not None:
            await self.emulation.stop()


async def make_keys(network: Network, lifetime: str = "10m") -> None:
    """Make every secret and the signed descriptor with the real commands.

    Args:
        network: Where to.
        lifetime: Longest window of evidence, in an attested network.
    """
    names = [f"server-{i}" for i in range(SERVERS)]
    names += ["root", *(f"leaf-{i}" for i in range(LEAVES))]
    limit = asyncio.Semaphore(os.cpu_count() or 2)

    async def keygen(kind: str, name: str) -> None:
        async with limit:
            await network.command("keygen", kind, "--out", f"{name}.secret")

    await asyncio.gather(
        keygen("operator", "operator"),
        keygen("committee", "committee"),
        *(keygen("node", name) for name in names),
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    arguments = [
        "descriptor",
        "create",
        *("--name", INSTANCE),
        *("--committee-secret-file", "committee.secret"),
        *("--operator", "operator.secret.pub"),
        *("--days", "1"),
        *("--round-period", "500ms"),
        *("--fold-deadline", "2s"),
        *("--round-deadline", "8s"),
        *("--out", network.descriptor.name),
    ]
    if network.emulation is not None:
        await network.emulation.start()
        arguments += network.emulation.descriptor_arguments(lifetime)
    for name in names:
        where = f"{name}=127.0.0.1:{ports[name]}={name}.secret.pub"
        if name.startswith("server"):
            arguments += ["--server", where]
        else:
            parent = "" if name == "root" else ",parent=root"
            arguments += ["--aggregator", where + parent]
    await network.command(*arguments)
    await network.command("descriptor", "sign", network.descriptor.name, "--key", "operator.secret")


async def wait_ready(network: Network, name: str) -> None:
    """Wait for a node's ``node_ready`` line, then keep its output flowing.

    Raises:
        DemoError: When the process ends or stays silent instead.
    """
    stream = network.processes[name].stdout
    assert stream is not None
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            while line := await stream.readline():
                if b'"node_ready"' in line:
                    return
    except TimeoutError:
        raise DemoError(f"{name} was not ready in time: {network.complaint(name)}") from None
    raise DemoError(f"{name} ended instead of getting ready: {network.complaint(name)}")


async def drain(network: Network, names: Iterable[str]) -> None:
    """Write the nodes' logs to files so that no pipe fills up."""

    async def one(name: str) -> None:
        stream = network.processes[name].stdout
        assert stream is not None
        with (network.folder / f"{name}.log").open("wb") as log:
            while line := await stream.readline():
                log.write(line)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))


async def start_nodes(network: Network) -> list[str]:
    """Start servers and aggregators; return their names once all are listening."""
    common = ("--descriptor", network.descriptor.name, "--instance", INSTANCE)
    names: list[str] = []
    for index in range(SERVERS):
        name = f"server-{index}"
        await network.start(
            name,
            "server",
            *common,
            *("--secret-file", f"{name}.secret"),
            *("--committee-secret-file", "committee.secret"),
            *("--state", f"{name}.state"),
        )
        names.append(name)
    for name in ("root", *(f"leaf-{i}" for i in range(LEAVES))):
        await network.start(name, "aggregator", *common, "--secret-file", f"{name}.secret")
        names.append(name)
    await asyncio.gather(*(wait_ready(network, name) for name in names))
    return names


async def start_publishers(network: Network, lines: Sequence[str]) -> None:
    """Start the publishers, each with its share of the lines, and the reader."""
    for index in range(PUBLISHERS):
        share = lines[index::PUBLISHERS]
        path = network.folder / f"lines-{index}.txt"
        path.write_text("".join(f"{line}\n" for line in share), encoding="utf-8")
        await network.start(
            f"publisher-{index}",
            "publish",
            *("--descriptor", network.descriptor.name, "--transport", "quic"),
            *("--messages", path.name, "--cover", "--json", "--timeout", "600s"),
        )
    await network.start(
        "reader",
        "read",
        *("--descriptor", network.descriptor.name, "--from", "0", "--follow", "--json"),
    )


async def refuse_intruder(network: Network, outcome: Outcome) -> None:
    """Let somebody who runs another image try to publish; the network must refuse them."""
    process = await network.start(
        "intruder",
        "publish",
        *("--descriptor", network.descriptor.name, "--timeout", "60s"),
        *("--message", "this must never be published"),
        image="forged client",
    )
    assert process.stdout is not None
    printed = await process.stdout.read()
    code = await process.wait()
    said = network.complaint("intruder")
    if code == 0 or printed or "mrtd" not in said:
        outcome.failed.append(f"a publisher with a wrong MRTD was not refused: {said}")
    else:
        outcome.refused += 1
        say(f"  refused: a publisher with a wrong MRTD: {shorten(said)}")


async def follow_publisher(network: Network, name: str, outcome: Outcome, total: int) -> None:
    """Count a publisher's receipts as they come."""
    stream = network.processes[name].stdout
    assert stream is not None
    while line := await stream.readline():
        receipt = json.loads(line)
        await outcome.note()
        say(
            f"  published {outcome.published:>4}/{total}  receipt: round {receipt['round']}, "
            f"{len(receipt['slots'])} slot(s), one of {receipt['participants']} participants"
        )
    if network.processes[name].returncode is None:
        await network.processes[name].wait()
    raise DemoError(f"{name} stopped: {network.complaint(name)}")


async def follow_reader(network: Network, outcome: Outcome, total: int) -> None:
    """Print each recovered message until all have come."""
    stream = network.processes["reader"].stdout
    assert stream is not None
    while len(outcome.recovered) < total:
        line = await stream.readline()
        if not line:
            raise DemoError(f"the reader stopped: {network.complaint('reader')}")
        found = json.loads(line)
        if not found["verified"]:
            raise DemoError("the reader was shown a message that does not verify")
        await outcome.note(found["message"])
        say(f"  round {found['round']:>4}  {found['message']}")


def shorten(text: str, width: int = 88) -> str:
    """Return a message as one line of the terminal."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


async def exchange(network: Network, nodes: Sequence[str], lines: Sequence[str]) -> Outcome:
    """Run rounds until every line is published and recovered, or the time is up."""
    outcome = Outcome()
    total = len(lines)

    async def until_done() -> None:
        if network.emulation is not None:
            await refuse_intruder(network, outcome)
        await outcome.reached(total)
        for task in others:
            task.cancel()

    others: list[asyncio.Task[None]] = []
    try:
        async with (
            asyncio.timeout(ROUNDS_DEADLINE_S + PER_MESSAGE_S * total),
            asyncio.TaskGroup() as group,
        ):
            others.append(group.create_task(drain(network, nodes)))
            others.extend(
                group.create_task(follow_publisher(network, f"publisher-{i}", outcome, total))
                for i in range(PUBLISHERS)
            )
            group.create_task(follow_reader(network, outcome, total))
            group.create_task(until_done())
    except* TimeoutError:
        outcome.failed.append("time ran out")
    except* DemoError as errors:
        outcome.failed += [str(error) for error in errors.exceptions]
    return outcome


def verify_from_disk(network: Network) -> tuple[int, int, list[str]]:
    """Verify every record of every server again, offline, with the descriptor alone.

    Returns:
        How many records there are, how many of them verify on every server that holds them and are
        the same there, and the messages they carry.

    Raises:
        DemoError: When two servers hold different records for one place in the log.
    """
    data = network.descriptor.read_bytes()
    descriptor = trust_descriptor(parse_descriptor(data), now=datetime.now(UTC))
    logs = [
        verify_log(network.folder / f"server-{i}.state" / "records", descriptor)
        for i in range(SERVERS)
    ]
    longest = max(logs, key=len)
    for log in logs:
        if [record.hash for record in log] != [record.hash for record in longest[: len(log)]]:
            raise DemoError("two servers hold different records for the same place in the log")
    machine = ReaderMachine()
    messages: list[str] = []
    for record in longest:
        told = machine.step(RecordArrived(record))
        messages += [event.payload.decode() for event in told if isinstance(event, Message)]
    return len(longest), len(longest), messages


def verify_log(folder: Path, descriptor: TrustedDescriptor) -> list[VerifiedRecord]:
    """Verify one server's record log from its first record to its last."""
    log = RecordLog.open_readonly(folder, group=descriptor.group)
    verified: list[VerifiedRecord] = []
    try:
        for data in log.read(0, log.next_sequence):
            record = verify_record(decode_record(data, descriptor.params), descriptor)
            require_extends(record, verified[-1] if verified else None)
            verified.append(record)
    finally:
        log.close()
    return verified


def missing(wanted: Iterable[str], found: Iterable[str]) -> list[str]:
    """Return the lines that were wanted and not found, doubles counted."""
    return list((Counter(wanted) - Counter(found)).elements())


async def run(messages: Path, folder: Path, *, emulated: bool) -> int:
    """Run the whole demo in a folder and return the exit status."""
    lines = read_lines(messages)
    network = Network(folder, emulated=emulated)
    began = time.monotonic()
    say(
        f"demo: {len(lines)} lines, {SERVERS} servers, {LEAVES} leaf aggregators and a root, "
        f"{PUBLISHERS} publishers"
    )
    if emulated:
        say(
            "demo: every node attests its platform; the platforms are EMULATED, this proves nothing"
        )
    outcome = Outcome()
    try:
        await make_keys(network)
        say(f"demo: keys made, descriptor signed ({time.monotonic() - began:.0f} s)")
        nodes = await start_nodes(network)
        say(f"demo: all nodes are listening ({time.monotonic() - began:.0f} s)")
        await start_publishers(network, lines)
        outcome = await exchange(network, nodes, lines)
    finally:
        await network.stop_all()
    say("demo: every process is stopped; verifying all records again from disk")
    rounds, verified, stored = verify_from_disk(network)
    lost = missing(lines, outcome.recovered) + missing(lines, stored)
    for text in dict.fromkeys(lost):
        say(f"demo: lost: {shorten(text)}")
    for text in outcome.failed:
        say(f"demo: failed: {text}")
    ok = not lost and not outcome.failed and outcome.published == len(lines)
    gated = f" refused={outcome.refused}" if emulated else ""
    say(
        f"demo {'ok' if ok else 'failed'}: published={outcome.published} "
        f"recovered={len(outcome.recovered)} rounds={rounds} verified={verified}{gated}"
    )
    return 0 if ok else 1


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.split("\n", 1)[0])
    default = Path(__file__).with_name("messages.txt")
    parser.add_argument("--messages", type=Path, default=default, help="a UTF-8 text file")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    parser.add_argument(
        "--tdx", choices=("off", "emulated"), default="off", help="gate every bond by a quote"
    )
    options = parser.parse_args()
    emulated = options.tdx == "emulated"
    try:
        if options.keep is not None:
            options.keep.mkdir(parents=True)
            folder = options.keep.resolve()
            return asyncio.run(run(options.messages.resolve(), folder, emulated=emulated))
        with tempfile.TemporaryDirectory(prefix="zipnet-demo-") as name:
            return asyncio.run(run(options.messages, Path(name), emulated=emulated))
    except (DemoError, ZipnetError, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
