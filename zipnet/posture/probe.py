"""Look at the host: everything a check wants to know that is not in the settings.

Rules:

1. Nothing is changed and nothing leaves: files are looked at, secrets compared in memory and wiped.
2. What cannot be found out is the worse of two answers, except where nobody could tell.
"""

from __future__ import annotations

import os
import resource
import stat
import time
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError
from zipnet.node.sandbox import sandbox_missing
from zipnet.posture.subject import BuildAge, HostFacts, Keeping
from zipnet.settings.bounded import read_bounded
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.sources import MAX_CONFIG_BYTES, SECRET_NAMES, parse_table
from zipnet.settings.types import (
    AggregatorSettings,
    CommonSettings,
    GatewaySettings,
    MicroSettings,
    NodeSettings,
    ServerSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zipnet.protocol.secret import Secret

__all__ = ["probe_host"]

_SYSTEM: Final = ("/", "/usr", "/etc")
_CAP_IPC_LOCK: Final = 14
_MEMORY_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
_MAX_NEIGHBOURS: Final = 256
_DAY_S: Final = 86_400.0


def probe_host(
    settings: CommonSettings | MicroSettings, environ: Mapping[str, str] | None = None
) -> HostFacts:
    """Return the facts of this host that matter to these settings.

    Args:
        settings: They name files and secrets.
        environ: Says when an image was built; this process's environment when None.
    """
    given = os.environ if environ is None else environ
    capabilities = _capabilities()
    return HostFacts(
        uid=os.geteuid(),
        capabilities=capabilities,
        no_filter=sandbox_missing(),
        system_writable=tuple(path for path in _SYSTEM if not _is_read_only(path)),
        memory_locks=_memory_locks(capabilities),
        swap=_has_swap(),
        build=_build_age(given),
        now_s=time.time(),
        kept={path: kept for path in _named(settings) if (kept := _keeping(path)) is not None},
        reused=tuple(_reused(settings)) if isinstance(settings, NodeSettings) else (),
    )


def _capabilities() -> int:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
        (line,) = (line for line in text.splitlines() if line.startswith("CapEff:"))
        return int(line.split()[1], 16)
    except (OSError, ValueError):
        return -1


def _is_read_only(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _memory_locks(capabilities: int) -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        return True
    return capabilities >= 0 and bool(capabilities >> _CAP_IPC_LOCK & 1)


def _has_swap() -> bool:
    try:
        lines = Path("/proc/swaps").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return True
    return len(lines) > 1


def _build_age(environ: Mapping[str, str]) -> BuildAge:
    now = time.time()
    built = _stamp(environ.get("ZIPNET_BUILD_TIME"))
    chosen = _stamp(environ.get("ZIPNET_INPUTS_TIME"))
    if built is None:
        built = _installed_at()
    return BuildAge(
        None if built is None else (now - built) / _DAY_S,
        None if chosen is None else (now - chosen) / _DAY_S,
    )


def _stamp(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None


def _installed_at() -> float | None:
    """Return when the distribution was installed; outside an image nothing else is known."""
    try:
        files = metadata.distribution("zipnet").files or []
        (record,) = (file for file in files if file.name == "METADATA")
        return Path(str(record.locate())).stat().st_mtime
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return None


def _named(settings: CommonSettings | MicroSettings) -> Iterator[Path]:
    """Yield the files and folders whose keeping is checked."""
    found: list[Path | None] = []
    if isinstance(settings, NodeSettings):
        found.append(settings.admin)
    if isinstance(settings, ServerSettings):
        found.append(settings.state)
    if isinstance(settings, AggregatorSettings | GatewaySettings):
        found.append(settings.capability_file)
    yield from (path for path in found if path is not None)


def _keeping(path: Path) -> Keeping | None:
    try:
        status = path.stat()
        where = path.resolve()
    except OSError:
        return None
    return Keeping(
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        in_memory=_filesystem(where) in _MEMORY_FILESYSTEMS,
        in_checkout=any((folder / ".git").exists() for folder in (where, *where.parents)),
    )


def _filesystem(path: Path) -> str:
    """Return the kind of the filesystem a path is on, empty where nobody says."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    best, kind = -1, ""
    for line in lines:
        fields, _, more = line.partition(" - ")
        point = Path(fields.split(" ")[4].replace("\\040", " "))
        # The last of equally deep ones lies on top.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), more.split(" ")[0]
    return kind


def _reused(settings: NodeSettings) -> Iterator[tuple[str, Path]]:
    """Yield secrets that another settings file in the same folder uses too (rows Z5, Z10)."""
    own = settings.config
    if own is None:
        return
    mine = {"secret": settings.secret}
    if isinstance(settings, ServerSettings):
        mine["committee_secret"] = settings.committee_secret
    for other in islice(sorted(own.parent.glob("*.toml")), _MAX_NEIGHBOURS):
        if other.name == own.name:
            continue
        for path in _secrets_of(other, settings.instance):
            with_it = _names_of(path, mine)
            yield from ((name, other) for name in with_it)


def _secrets_of(config: Path, instance: str) -> Iterator[Path]:
    """Yield where another settings file may have its secrets: as it says, or beside it.

    One of the same instance is taken for a copy: nodes of one instance that run on one host are
    told from each other by what they hold (:mod:`zipnet.node.sole_use`).
    """
    try:
        table = parse_table(
            config, read_bounded(config, MAX_CONFIG_BYTES, what="configuration file")
        )
    except ConfigError:
        return
    if table.get("instance") == instance:
        return
    for name in SECRET_NAMES:
        said = table.get(f"{name}_file")
        if isinstance(said, str):
            yield Path(said)
        yield config.with_suffix(f".{name.replace('_', '-')}")


def _names_of(path: Path, mine: Mapping[str, Secret]) -> list[str]:
    try:
        theirs, _ = read_secret_file(path, what="a neighbour's secret")
    except ConfigError:
        return []  # not there, or not ours to read
    with theirs:
        return [name for name, secret in mine.items() if secret == theirs]
