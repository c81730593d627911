"""The settings of each role as pydantic models: names, types, what each means, how to write it.

Nothing below this package sees these classes; :mod:`zipnet.settings.load` turns them into frozen
dataclasses at once. Secrets are not fields here: they never pass through pydantic
(:mod:`zipnet.settings.secretfiles`).

Every field is optional for pydantic; what a role needs is checked in one place, with an error
that says what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from zipnet.access.capability import CapabilityRole
from zipnet.errors import ConfigError
from zipnet.protocol.ids import PeerId, parse_peer_id, validate_instance_name, validate_universe
from zipnet.settings.allowances import ALLOWANCES
from zipnet.settings.limits import LIMITS_FIX, parse_limits
from zipnet.settings.values import (
    Endpoint,
    parse_cover_every,
    parse_duration_ms,
    parse_endpoint,
    parse_endpoints,
    parse_issuers,
    parse_mrtd,
    parse_roles,
    parse_uids,
    parse_whole,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = [
    "AggregatorInput",
    "BaseInput",
    "ClientInput",
    "CommonInput",
    "GatewayInput",
    "MicroInput",
    "NodeInput",
    "ServerInput",
    "fix_of",
]


def _named(check: str) -> BeforeValidator:
    """A validator of the protocol, its error reduced to a phrase that quotes nothing."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("not text")  # noqa: TRY004 - pydantic translates ValueError
        try:
            match check:
                case "instance":
                    return validate_instance_name(value)
                case "universe":
                    return validate_universe(value)
                case _:
                    return parse_peer_id(value)
        except ConfigError as error:
            raise ValueError(f"not a well-formed {check}") from error

    return BeforeValidator(validate)


def _file(value: object) -> object:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("not a file name")
    return Path(value)


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _yes_or_no(value: object) -> object:
    # A flag of the command line is true or false.
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _word(value)


def _field(text: str, fix: str) -> Any:  # noqa: ANN401 - stands for a value of the field's type
    return Field(default=None, description=text, json_schema_extra={"fix": fix})


def _allow(key: str) -> Any:  # noqa: ANN401 - as above
    allowance = ALLOWANCES[key]
    return _field(f"Escape hatch: {allowance.lets}", f'write exactly "{allowance.sentence}"')


def fix_of(field: FieldInfo) -> str:
    """Return what to write for a field, as its hint says."""
    extra = field.json_schema_extra
    return str(extra["fix"]) if isinstance(extra, dict) else ""


_Path = Annotated[Path, BeforeValidator(_file)]
_Duration = Annotated[int, BeforeValidator(parse_duration_ms)]
_Limits = Annotated[Mapping[str, float], NoDecode, BeforeValidator(parse_limits)]
_BOUNDS = "Bounds of what a caller may have (docs/wall.md), where the defaults do not fit."
_Endpoint = Annotated[Endpoint, NoDecode, BeforeValidator(parse_endpoint)]
_SHOWN = "File of the capability token shown after each handshake; needed where nodes ask for one."
_SHOWN_FIX = "write the file `zipnet token mint` or `zipnet token attenuate` wrote"
_DURATION_FIX = "write a duration such as 2s or 500ms"


class BaseInput(BaseSettings):
    """What every program with settings understands."""

    model_config = SettingsConfigDict(
        env_prefix="ZIPNET_",
        env_ignore_empty=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=False,
        arbitrary_types_allowed=True,
    )

    role: Annotated[
        Literal["server", "aggregator", "client", "gateway", "micro"] | None, BeforeValidator(_word)
    ] = _field(
        "What the settings are for; a program of another role refuses them.",
        "write server, aggregator, client, gateway or micro",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, BeforeValidator(_word)
    ] = _field(
        "Least level that is logged: `info` when unset.", "write debug, info, warning or error"
    )


class CommonInput(BaseInput):
    """What every role of an instance understands."""

    profile: Annotated[Literal["development", "production"] | None, BeforeValidator(_word)] = (
        _field(
            "`production` refuses what `development` (default) only warns of.",
            "write development or production",
        )
    )
    instance: Annotated[str | None, _named("instance")] = _field(
        "Name of the instance; must be the descriptor's. Required for nodes.",
        "write the name the descriptor carries, such as acme.mainnet",
    )
    universe: Annotated[str | None, _named("universe")] = _field(
        "Universe the instance lives in. Nodes: `zipnet` when unset. Clients: the descriptor's.",
        "leave it unset, or write the universe the descriptor carries",
    )
    descriptor: _Path | None = _field(
        "File of the signed instance descriptor. Required.",
        "write the path of the descriptor file the operator published",
    )
    operator: Annotated[PeerId | None, _named("operator")] = _field(
        "Peer id of the operator whose signature the descriptor must carry.",
        "write the operator's peer id: zp1 and 64 hexadecimal digits",
    )
    transport: Annotated[Literal["quic", "tls"] | None, BeforeValidator(_word)] = _field(
        "Transport used to dial: `quic` (clients' default) or `tls` (nodes' default).",
        "write quic or tls",
    )
    bootstrap: (
        Annotated[tuple[Endpoint, ...], NoDecode, BeforeValidator(parse_endpoints)] | None
    ) = _field(
        "Addresses dialled for committee servers, in the descriptor's order, instead of the "
        "descriptor's own.",
        "write host:port, separated by commas",
    )
    config_key: _Path | None = _field(
        "Public file of who must have signed the settings file; given by flag or environment, "
        "never by the file.",
        "write the path of the .pub file of `zipnet keygen operator`",
    )
    config_version: Annotated[int, BeforeValidator(parse_whole)] | None = _field(
        "Number of the settings file, which a signed one must have; a server takes none below the "
        "highest it ran with.",
        "write a whole number, one more with each change",
    )
    allow_unsigned_settings: str | None = _allow("allow_unsigned_settings")
    allow_unattested: str | None = _allow("allow_unattested")
    allow_shared_fault_domain: str | None = _allow("allow_shared_fault_domain")
    tdx_source: Annotated[
        Literal["configfs", "device", "emulator"] | None, BeforeValidator(_word)
    ] = _field(
        "Where this machine's TDX quotes come from; needed where the descriptor gates the role.",
        "write configfs, device or emulator",
    )
    tdx_collateral: _Path | None = _field(
        "Bundle of collateral this machine's quotes are judged by; read again when it changes.",
        "write the file `tdx fetch` wrote, or the collateral.json of `tdx emulate serve`",
    )
    tdx_policy: _Path | None = _field(
        "Policy asked of attested peers besides the descriptor's; read again when it changes.",
        "write a policy file (docs/tdx.md), or leave it unset",
    )
    tdx_second_opinion: Annotated[Literal["yes", "no"] | None, BeforeValidator(_word)] = _field(
        "`yes` also demands that the dcap-qvl wheel, a verifier written apart, accepts peers' "
        "quotes; it must be installed.",
        "write yes or no",
    )
    tdx_emulator: _Path | None = _field(
        "Unix socket of `tdx emulate serve`, where TDX_SOURCE is emulator.",
        "write the socket's path",
    )
    tdx_emulated_mrtd: Annotated[bytes | None, NoDecode, BeforeValidator(parse_mrtd)] = _field(
        "MRTD the emulated machine shows, where TDX_SOURCE is emulator.",
        "write 96 hexadecimal digits",
    )


class NodeInput(CommonInput):
    """What servers and aggregators add."""

    listen: _Endpoint | None = _field(
        "Address of the transport port (UDP and TCP); the descriptor's endpoint when unset.",
        "write host:port, such as 0.0.0.0:4433",
    )
    metrics: _Endpoint | None = _field(
        "Address of the HTTP port for health and metrics; `127.0.0.1:0` (any free port, logged) "
        "when unset.",
        "write host:port on loopback, such as 127.0.0.1:9464",
    )
    allow_old_build: str | None = _allow("allow_old_build")
    allow_old_keys: str | None = _allow("allow_old_keys")
    allow_no_sandbox: str | None = _allow("allow_no_sandbox")
    allow_privileges: str | None = _allow("allow_privileges")
    allow_writable_system: str | None = _allow("allow_writable_system")
    allow_public_metrics: str | None = _allow("allow_public_metrics")
    token_issuers: Annotated[tuple[bytes, ...], NoDecode, BeforeValidator(parse_issuers)] | None = (
        _field(
            "Keys of those who may sign capability tokens; none counts where this is unset.",
            "write what `zipnet token keygen` printed, separated by commas",
        )
    )
    token_roles: (
        Annotated[frozenset[CapabilityRole], NoDecode, BeforeValidator(parse_roles)] | None
    ) = _field(
        "Roles this node asks a capability for: `publish`, `aggregate`, `read`; none when unset.",
        "write publish, aggregate or read, separated by commas",
    )
    admin: _Path | None = _field(
        "Folder of the admin socket; `admin` in the state folder when unset, and no socket where "
        "there is none.",
        "write a folder only the node's user can enter",
    )
    admin_uids: Annotated[tuple[int, ...], NoDecode, BeforeValidator(parse_uids)] | None = _field(
        "Numbers of the users, besides the node's own, that may speak to the admin socket.",
        "write user ids, separated by commas",
    )
    trace_collector: _Endpoint | None = _field(
        "Collector on this machine that traces go to, by OTLP over HTTP; none are sent when unset.",
        "write host:port on loopback, such as 127.0.0.1:4318",
    )
    trace_file: _Path | None = _field(
        "File that traces go to, as OTLP in JSON lines; none are made when unset.",
        "write a file the node's user may write",
    )
    limits: _Limits | None = _field(_BOUNDS, LIMITS_FIX)
    round_period: _Duration | None = _field(
        "Time from one round's opening to the next; the descriptor's when unset.", _DURATION_FIX
    )
    fold_deadline: _Duration | None = _field(
        "Time from opening until aggregators stop folding; the descriptor's when unset.",
        _DURATION_FIX,
    )
    round_deadline: _Duration | None = _field(
        "Time from opening until an unfinished round is aborted; the descriptor's when unset.",
        _DURATION_FIX,
    )


class ServerInput(NodeInput):
    """Settings of `zipnet server`."""

    state: _Path | None = _field(
        "Folder of the durable state; systemd's $STATE_DIRECTORY when unset. Without either the "
        "server keeps everything in memory and writes no file (amnesia).",
        "write a folder only the server's user can enter",
    )
    min_participants: Annotated[int, BeforeValidator(parse_whole)] | None = _field(
        "Fewest clients this server unblinds a round for; the descriptor's when unset, never "
        "fewer than that.",
        "write a whole number, at least the descriptor's min_participants",
    )
    snapshot_every: Annotated[int, BeforeValidator(parse_whole)] | None = _field(
        "Commands of the committee's log after which a snapshot takes their place, so that log and "
        "restart stay short; 1000 when unset. A round is about 12 commands.",
        "write a whole number, at least 10",
    )
    etcd: _Endpoint | None = _field(
        "Client address of an etcd beside this server, which then carries the committee's log in "
        "place of the embedded engine; the same on all servers, and for good.",
        "write host:port on loopback, such as 127.0.0.1:2379, or leave it unset",
    )
    allow_few_participants: str | None = _allow("allow_few_participants")


class AggregatorInput(NodeInput):
    """Settings of `zipnet aggregator`."""

    token: _Path | None = _field(_SHOWN, _SHOWN_FIX)


class ClientInput(CommonInput):
    """Settings of `zipnet publish` and `zipnet read`."""

    token: _Path | None = _field(_SHOWN, _SHOWN_FIX)
    state: _Path | None = _field(
        "Folder a publisher keeps its state in; none is kept when unset.",
        "write a folder only you can enter",
    )
    cadence: Annotated[int, NoDecode, BeforeValidator(parse_cover_every)] | None = _field(
        "Rounds a publisher takes part in: `always` (default) or N for every N-th.",
        "write always, or a whole number such as 4 for every fourth round",
    )


_GATEWAY = "Address of the gateway's HTTP port; `127.0.0.1:8640` when unset."
_GATEWAY_FIX = "write host:port on loopback, such as 127.0.0.1:8640"


class GatewayInput(CommonInput):
    """Settings of `zipnet gateway`."""

    token: _Path | None = _field(_SHOWN, _SHOWN_FIX)
    gateway: _Endpoint | None = _field(_GATEWAY, _GATEWAY_FIX)
    read_only: Annotated[Literal["yes", "no"] | None, BeforeValidator(_yes_or_no)] = _field(
        "`yes` serves no publishing, and takes no part in rounds.", "write yes or no"
    )
    proxy: str | None = _field(
        "Proxy towards the nodes, with TRANSPORT tls; none when unset.",
        "write socks5://host:port, such as socks5://127.0.0.1:9050 for Tor",
    )
    limits: _Limits | None = _field(_BOUNDS, LIMITS_FIX)
    allow_public_gateway: str | None = _allow("allow_public_gateway")
    allow_publishing_for_others: str | None = _allow("allow_publishing_for_others")


class MicroInput(BaseInput):
    """Settings of `zipnet micro`."""

    profile: Annotated[Literal["micro"] | None, BeforeValidator(_word)] = _field(
        "`micro`, the only one there is for one process that holds every key.", "write micro"
    )
    descriptor: _Path | None = _field(
        "File the micro network's descriptor is written to; `micro.toml` when unset.",
        "write a path where no file is yet",
    )
    gateway: _Endpoint | None = _field(_GATEWAY, _GATEWAY_FIX)
    servers: Annotated[int, BeforeValidator(parse_whole)] | None = _field(
        "Committee servers of a micro network; 3 when unset.", "write 3, 5 or 7"
    )
    covers: Annotated[int, BeforeValidator(parse_whole)] | None = _field(
        "Publishers of a micro network that send cover; 3 when unset.",
        "write a whole number, at least 2",
    )
