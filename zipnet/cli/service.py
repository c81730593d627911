"""What every long-running verb does around its node: logs, limits of the process, signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.node.process_memory import forbid_core_files, seal_memory
from zipnet.node.sandbox import confine
from zipnet.node.sole_use import hold_secrets
from zipnet.node.upstreams import upstreams
from zipnet.observe.log import configure_logging, get_logger
from zipnet.posture import Subject, examine, probe_host, require_posture
from zipnet.posture.subject import State
from zipnet.protocol.ids import short_peer_id
from zipnet.settings.types import ServerSettings
from zipnet.transport.egress import restrict_egress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from zipnet.settings import NodeSettings

__all__ = ["prepare_process", "run_service", "until_signal"]

_SECRETS = ("SECRET", "COMMITTEE_SECRET")


def run_service(
    service: str,
    role: str,
    settings: NodeSettings,
    node: Callable[[asyncio.Event], Awaitable[None]],
) -> None:
    """Run a node until SIGTERM or SIGINT asks it to stop.

    Args:
        service: Program name for the logs.
        role: ``server`` or ``aggregator``.
        settings: The node's settings.
        node: Runs until the event it is given is set.

    Raises:
        ConfigError: When production would write the traffic keys to a file, or its posture does
            not hold.
    """
    prepare_process(
        service, settings.instance, role, nodes=[settings], log_level=settings.log_level
    )
    asyncio.run(until_signal(node))


def prepare_process(
    service: str,
    instance: str,
    role: str,
    *,
    nodes: Iterable[NodeSettings],
    log_level: str,
    in_memory: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Set up logs and limits of a process that is about to hold secrets.

    Args:
        service: Program name for the logs.
        instance: Instance for lines that carry none of their own.
        role: Role for lines that carry none of their own.
        nodes: Settings of every node the process will run.
        log_level: Least level that is logged.
        in_memory: Whether to seal the memory although no node's settings ask for it.
        stream: Where logs go; standard output when None.

    Raises:
        ConfigError: When production would write the traffic keys to a file, or its posture does
            not hold.
    """
    listed = list(nodes)
    if os.environ.get("SSLKEYLOGFILE") and any(node.is_production for node in listed):
        raise ConfigError(
            "SSLKEYLOGFILE is set: traffic keys would go to a file",
            hint="unset it, or use the development profile",
        )
    # A core file would hold every secret of the process.
    forbid_core_files()
    # A running node never hands out what its umask should have kept.
    os.umask(0o077)
    configure_logging(service=service, instance=instance, role=role, level=log_level, stream=stream)
    log = get_logger()
    for node in listed:
        for warning in node.warnings:
            log.warning("setting_not_for_production", text=warning)
        if not node.is_production:
            log.warning("posture_not_for_production", profile=node.profile)
        _require_posture(node)
        _say_secrets_read(node)
    if in_memory or any(isinstance(node, ServerSettings) and not node.state for node in listed):
        _seal()
    restrict_egress({endpoint for node in listed for endpoint in upstreams(node)})
    _confine()


def _require_posture(node: NodeSettings) -> None:
    """Refuse to run a production node whose posture does not hold (rows L13, H6, Z20)."""
    if not node.is_production:
        return
    findings = examine(Subject(node, probe_host(node), starting=True), "production")
    for finding in findings:
        if finding.state is State.ALLOWED:
            get_logger().warning("posture_weakened", setting=finding.key.upper(), text=finding.text)
    require_posture(findings)
    hold_secrets(node)


def _say_secrets_read(node: NodeSettings) -> None:
    """Tell by key id which secrets were read; a node with an audit trail has it there too."""
    for item in node.effective:
        if item.name in _SECRETS and item.value.startswith("set "):
            peer = short_peer_id(node.identity.peer_id)
            text = f"{item.value} by {item.origin}"
            get_logger().info("secret_read", setting=item.name, peer=peer, text=text)


def _confine() -> None:
    """Give up what a node never needs (row L5); the last act before it runs."""
    log = get_logger()
    confined = confine()
    if not confined.filtered:
        log.warning("sandbox_incomplete", reason="no_filter", warning=confined.reason)


def _seal() -> None:
    log = get_logger()
    sealed = seal_memory()
    log.info("memory_only", state="none")
    if not sealed.undumpable:
        log.warning("memory_not_sealed", warning="other processes may read this one's memory")
    if not sealed.locked:
        log.warning("memory_not_locked", warning="pages may go to swap: allow CAP_IPC_LOCK")


async def until_signal(node: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a node, and ask it to stop at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await node(stop)
