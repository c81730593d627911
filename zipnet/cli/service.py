"""What every long-running verb does around its node: logs, limits of the process, signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.node.process_memory import forbid_core_files, seal_memory
from zipnet.observe.log import configure_logging, get_logger
from zipnet.settings.types import ServerSettings

if TYPE_CHECKING:
    from zipnet.settings import NodeSettings

__all__ = ["run_service"]


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
        ConfigError: When production would write the traffic keys to a file.
    """
    if settings.is_production and os.environ.get("SSLKEYLOGFILE"):
        raise ConfigError(
            "SSLKEYLOGFILE is set: traffic keys would go to a file",
            hint="unset it, or use the development profile",
        )
    # A core file would hold every secret of the process.
    forbid_core_files()
    # A running node never hands out what its umask should have kept.
    os.umask(0o077)
    configure_logging(
        service=service, instance=settings.instance, role=role, level=settings.log_level
    )
    log = get_logger()
    for warning in settings.warnings:
        log.warning("setting_not_for_production", text=warning)
    if not settings.is_production:
        log.warning("posture_not_for_production", profile=settings.profile)
    if isinstance(settings, ServerSettings) and settings.state is None:
        sealed = seal_memory()
        log.info("memory_only", state="none")
        if not sealed.undumpable:
            log.warning("memory_not_sealed", warning="other processes may read this one's memory")
        if not sealed.locked:
            log.warning("memory_not_locked", warning="pages may go to swap: allow CAP_IPC_LOCK")
    asyncio.run(_until_signal(node))


async def _until_signal(node: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await node(stop)
