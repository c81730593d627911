"""What a node does besides what every node does, by name, for ``/version`` (row A2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.settings.types import ServerSettings

if TYPE_CHECKING:
    from zipnet.settings.types import NodeSettings

__all__ = ["features_of"]


def features_of(settings: NodeSettings) -> tuple[str, ...]:
    """Return the names of what is switched on, in alphabetical order."""
    found = {f"dials_{settings.transport}"}
    if settings.admin is not None:
        found.add("admin_socket")
    if settings.access.asked:
        found.add("capabilities")
    if settings.config_version is not None:
        found.add("signed_settings")
    if settings.platform is not None:
        found.add("attests")
    if isinstance(settings, ServerSettings):
        found.add("etcd_log" if settings.etcd is not None else "embedded_log")
        found.add("amnesia" if settings.state is None else "durable")
    return tuple(sorted(found))
