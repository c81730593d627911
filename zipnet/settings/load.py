"""Load the settings of a role: gather, validate, read descriptor and secrets, check them together.

Steps, the same for every role; each failure is a :class:`~zipnet.errors.ConfigError` of one line,
and nothing is written anywhere:

1. Gather flags, environment and file (:mod:`zipnet.settings.sources`).
2. Refuse what the role must never hold: a committee secret away from a server (row Z13).
3. Validate each setting.
4. Read the descriptor and trust it now (row Z3).
5. Compare instance and universe with it (protocol.md §3).
6. Read the secrets; find this node in the descriptor; compare the committee's fingerprint.
7. Check what settings demand of each other, and what production demands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.settings.assemble import Assembly
from zipnet.settings.keycustody import MemoryCustody
from zipnet.settings.model import (
    AggregatorInput,
    ClientInput,
    GatewayInput,
    MicroInput,
    ServerInput,
)
from zipnet.settings.sources import Sources
from zipnet.settings.types import (
    DEFAULT_SNAPSHOT_EVERY,
    AggregatorSettings,
    ClientSettings,
    GatewaySettings,
    MicroSettings,
    ServerSettings,
)
from zipnet.settings.values import ALLOW_FEW_PARTICIPANTS, Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from zipnet.protocol.secret import Secret

__all__ = [
    "DEFAULT_GATEWAY",
    "PRODUCTION_MIN_PARTICIPANTS",
    "load_aggregator",
    "load_client",
    "load_gateway",
    "load_micro",
    "load_server",
]

PRODUCTION_MIN_PARTICIPANTS = 8
"""Fewest participants production unblinds for unless told otherwise by name (protocol.md §6)."""

DEFAULT_GATEWAY = Endpoint("127.0.0.1", 8640)
_LEAST_SNAPSHOT_EVERY = 10
_LEAST_COVERS = 2


def load_server(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config: Path | None = None,
    *,
    now: datetime | None = None,
) -> ServerSettings:
    """Load the settings of a committee server.

    Args:
        flags: Command line options by setting name (``listen``, ``secret_file``, …); None is unset.
        environ: The environment, such as ``os.environ``.
        config: The TOML file, if any.
        now: Time to judge the descriptor at; the current time when None.

    Raises:
        ConfigError: When anything is missing, malformed or does not fit together.
    """
    sources = Sources.gather(flags, environ, config)
    assembly = Assembly(ServerInput, sources, role="server", now=now)
    common = assembly.common(transport="tls")
    shared = _required_secret(assembly, "committee_secret", "committee")
    upcoming = assembly.later_secret("next_committee_secret", beside="committee_secret")
    assembly.require_committee(shared, upcoming)
    secret = _required_secret(assembly, "secret", "node")
    assembly.refuse_committee_as_own(secret)
    identity = MemoryCustody(secret).open()
    index = assembly.trusted.server_index(identity.peer_id)
    if index is None:
        raise assembly.not_registered(identity)
    node = assembly.descriptor.servers[index]
    parts = assembly.node_parts(assembly.given, node)
    state = _server_state(assembly)
    min_participants = _min_participants(assembly)
    admin = _admin(assembly, None if state is None else state / "admin")
    return ServerSettings(
        **common,
        **parts,
        secret=secret,
        identity=identity,
        node=node,
        committee_secret=shared,
        next_committee_secret=upcoming,
        index=index,
        admin=admin,
        state=state,
        min_participants=min_participants,
        snapshot_every=_snapshot_every(assembly),
        etcd=_etcd(assembly, state),
        warnings=assembly.warnings,
        effective=assembly.effective,
    )


def load_aggregator(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config: Path | None = None,
    *,
    now: datetime | None = None,
) -> AggregatorSettings:
    """Load the settings of an aggregator; arguments as for :func:`load_server`.

    Raises:
        ConfigError: When anything is missing, malformed or does not fit together, or a committee
            secret was given by any route (row Z13).
    """
    sources = Sources.gather(flags, environ, config)
    assembly = Assembly(AggregatorInput, sources, role="aggregator", now=now)
    common = assembly.common(transport="tls")
    secret = _required_secret(assembly, "secret", "node")
    assembly.refuse_committee_as_own(secret)
    identity = MemoryCustody(secret).open()
    entry = assembly.trusted.aggregator(identity.peer_id)
    if entry is None:
        raise assembly.not_registered(identity)
    parts = assembly.node_parts(assembly.given, entry.node)
    return AggregatorSettings(
        **common,
        **parts,
        secret=secret,
        identity=identity,
        node=entry.node,
        entry=entry,
        admin=_admin(assembly, None),
        capability=assembly.capability(assembly.given.token),
        capability_file=assembly.given.token,
        warnings=assembly.warnings,
        effective=assembly.effective,
    )


def load_client(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config: Path | None = None,
    *,
    now: datetime | None = None,
) -> ClientSettings:
    """Load the settings of a publisher or reader; arguments as for :func:`load_server`.

    INSTANCE and UNIVERSE may be left out; when given they must be the descriptor's. SECRET may be
    left out too: a publisher then draws a fresh identity.

    Raises:
        ConfigError: When anything is missing, malformed or does not fit together.
    """
    sources = Sources.gather(flags, environ, config)
    assembly = Assembly(ClientInput, sources, role="client", now=now)
    common = assembly.common(transport="quic")
    secret = assembly.secret("secret")
    if secret is not None:
        assembly.refuse_committee_as_own(secret)
    state = assembly.pick("state", assembly.given.state, None)
    cover_every = assembly.pick("cadence", assembly.given.cadence, 1)
    return ClientSettings(
        **common,
        secret=secret,
        state=state,
        cover_every=cover_every,
        capability=assembly.capability(assembly.given.token),
        warnings=assembly.warnings,
        effective=assembly.effective,
    )


def load_gateway(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config: Path | None = None,
    *,
    now: datetime | None = None,
) -> GatewaySettings:
    """Load the settings of a gateway; arguments as for :func:`load_server`.

    Raises:
        ConfigError: When anything is missing, malformed or does not fit together.
    """
    sources = Sources.gather(flags, environ, config)
    assembly = Assembly(GatewayInput, sources, role="gateway", now=now)
    common = assembly.common(transport="quic")
    given = assembly.given
    return GatewaySettings(
        **common,
        gateway=assembly.pick("gateway", given.gateway, DEFAULT_GATEWAY),
        read_only=assembly.pick("read_only", given.read_only, "no") == "yes",
        proxy=assembly.pick("proxy", given.proxy, None),
        public=given.allow_public_gateway,
        publish_for_others=given.allow_publishing_for_others,
        bounds=assembly.bounds(given.limits),
        capability=assembly.capability(given.token),
        capability_file=given.token,
        warnings=assembly.warnings,
        effective=assembly.effective,
    )


def load_micro(
    flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None = None
) -> MicroSettings:
    """Load the settings of a micro network; arguments as for :func:`load_server`.

    Raises:
        ConfigError: When anything is malformed or of another role.
    """
    given = Sources.gather(flags, environ, config).read(MicroInput)
    if given.role not in (None, "micro"):
        raise ConfigError(
            f"setting ROLE: the settings are for a {given.role}, not for a micro network",
            hint="give this program its own settings, or correct the role",
        )
    covers = 3 if given.covers is None else given.covers
    if covers < _LEAST_COVERS:
        raise ConfigError(
            f"setting COVERS is {covers}: a round would have no crowd", hint="write 2 or more"
        )
    return MicroSettings(
        descriptor_file=given.descriptor or Path("micro.toml"),
        gateway=given.gateway or DEFAULT_GATEWAY,
        servers=3 if given.servers is None else given.servers,
        covers=covers,
        log_level=given.log_level or "error",
    )


def _required_secret(
    assembly: Assembly[ServerInput] | Assembly[AggregatorInput], name: str, kind: str
) -> Secret:
    secret = assembly.secret(name)
    if secret is None:
        raise ConfigError(
            f"setting {name.upper()}_FILE is required and was not given",
            hint=f"name the file `zipnet keygen {kind}` wrote "
            f"(--{name.replace('_', '-')}-file, ZIPNET_{name.upper()}_FILE)",
        )
    return secret


def _server_state(assembly: Assembly[ServerInput]) -> Path | None:
    # systemd may list several folders, separated by colons; the first is ours.
    granted = assembly.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    given = assembly.given.state
    if given is None and not granted:
        assembly.note("state", "none: in memory, nothing on disk (amnesia)", "default")
        return None
    state = assembly.pick("state", given, Path(granted), origin="environment STATE_DIRECTORY")
    if state.exists() and not state.is_dir():
        raise ConfigError(f"setting STATE: {state} is not a folder", hint="write a folder's path")
    return state


def _admin(
    assembly: Assembly[ServerInput] | Assembly[AggregatorInput], usual: Path | None
) -> Path | None:
    # systemd may list several folders, separated by colons; the first is ours.
    granted = assembly.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if assembly.given.admin is None and granted:
        return assembly.pick(
            "admin", None, Path(granted) / "admin", origin="environment RUNTIME_DIRECTORY"
        )
    return assembly.pick("admin", assembly.given.admin, usual)


def _etcd(assembly: Assembly[ServerInput], state: Path | None) -> Endpoint | None:
    given = assembly.given.etcd
    if given is None:
        assembly.note("etcd", "not set: the log is this server's own", "default")
        return None
    if not given.is_loopback:
        raise ConfigError(
            f"setting ETCD: {given} is not on this machine, and would be spoken to in the clear",
            hint="run an etcd beside each server, as etcd's own members of one cluster",
        )
    if state is None:
        raise ConfigError(
            "setting ETCD needs STATE: a server without memory has no lasting place in a log",
            hint="give a state folder, or leave ETCD unset",
        )
    return assembly.pick("etcd", given, given)


def _snapshot_every(assembly: Assembly[ServerInput]) -> int:
    chosen = assembly.pick("snapshot_every", assembly.given.snapshot_every, DEFAULT_SNAPSHOT_EVERY)
    if chosen < _LEAST_SNAPSHOT_EVERY:
        raise ConfigError(
            f"setting SNAPSHOT_EVERY is {chosen}, fewer than {_LEAST_SNAPSHOT_EVERY} commands",
            hint="a snapshot is written whole each time: write 100 or more, or leave it unset",
        )
    return chosen


def _min_participants(assembly: Assembly[ServerInput]) -> int:
    least = assembly.descriptor.params.min_participants
    chosen = assembly.pick(
        "min_participants", assembly.given.min_participants, least, origin="descriptor"
    )
    if chosen < least:
        raise ConfigError(
            f"setting MIN_PARTICIPANTS is {chosen}, below the descriptor's {least}",
            hint=f"write {least} or more: a server may be stricter than the group, never laxer",
        )
    allowed = assembly.given.allow_few_participants == ALLOW_FEW_PARTICIPANTS
    if chosen < PRODUCTION_MIN_PARTICIPANTS and assembly.is_production and not allowed:
        raise ConfigError(
            f"setting MIN_PARTICIPANTS is {chosen}; production refuses fewer than "
            f"{PRODUCTION_MIN_PARTICIPANTS}",
            hint="raise it, or see allow_few_participants in docs/reference/settings.md",
        )
    return chosen
