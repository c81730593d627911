"""Assemble a role's settings step by step, keeping the origin of each (steps in ``load``).

Long because each setting of each role is put together once, in the order of the reference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, NotRequired, TypedDict, TypeVar

from zipnet.access.terms import AccessTerms
from zipnet.attestation.source import PlatformConfig, QuoteSourceKind, require_complete
from zipnet.errors import ConfigError, PolicyMismatchError, UnknownInstanceError
from zipnet.protocol.attestation import AttestationMode, Gate
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES, parse_descriptor, trust_descriptor
from zipnet.protocol.ids import DEFAULT_UNIVERSE, PeerId, committee_fingerprint, format_peer_id
from zipnet.protocol.params import Cadence
from zipnet.settings.allowances import allowed_by, void_allowances
from zipnet.settings.bounded import read_bounded
from zipnet.settings.limits import bounds_of
from zipnet.settings.model import CommonInput, fix_of
from zipnet.settings.secretfiles import find_later_secret, find_secret, load_secret
from zipnet.settings.tokenfile import read_token_file
from zipnet.settings.types import Effective
from zipnet.settings.values import ALLOW_PUBLIC_METRICS, ALLOW_UNSIGNED_SETTINGS, Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zipnet.access.bounds import WallBounds
    from zipnet.access.capability import CapabilityRole
    from zipnet.protocol.descriptor import Descriptor, NodeEntry, TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.secret import Secret
    from zipnet.settings.model import NodeInput
    from zipnet.settings.secretfiles import LaterSecret
    from zipnet.settings.sources import Sources
    from zipnet.settings.types import LogLevel, Profile, TransportName

__all__ = ["DEFAULT_METRICS", "Assembly", "CommonParts", "NodeParts", "read_descriptor"]

DEFAULT_METRICS = Endpoint("127.0.0.1", 0)
_DESCRIPTOR = "descriptor"
_NODES = ("server", "aggregator")
_DURATIONS = ("round_period", "fold_deadline", "round_deadline")
_Input = TypeVar("_Input", bound=CommonInput)
_T = TypeVar("_T")


class CommonParts(TypedDict):
    """Fields of :class:`~zipnet.settings.types.CommonSettings`, less the report on them."""

    instance: str
    universe: str
    descriptor: TrustedDescriptor
    descriptor_file: Path
    operator: PeerId | None
    transport: TransportName
    server_endpoints: tuple[Endpoint, ...]
    profile: Profile
    log_level: LogLevel
    platform: PlatformConfig | None
    config_version: int | None
    allowed: NotRequired[tuple[str, ...]]
    config: NotRequired[Path | None]


class NodeParts(TypedDict):
    """Fields nodes add that come from settings alone."""

    listen: Endpoint
    metrics: Endpoint
    cadence: Cadence
    access: AccessTerms
    admin_uids: tuple[int, ...]
    trace_file: Path | None
    trace_collector: Endpoint | None
    bounds: WallBounds


def read_descriptor(
    path: Path, *, now: datetime | None = None, operator: PeerId | None = None
) -> TrustedDescriptor:
    """Read a descriptor file and trust it at ``now`` (row Z3).

    Args:
        path: The file.
        now: Time to judge validity at; the current time when None.
        operator: Peer id of the operator it must be signed by, None for the one it names.

    Raises:
        ConfigError: When it cannot be read, is too large, unsigned, altered or out of date; the
            line names the file.
    """
    data = read_bounded(path, MAX_DESCRIPTOR_BYTES, what=_DESCRIPTOR)
    try:
        return trust_descriptor(
            parse_descriptor(data), now=now or datetime.now(UTC), expected_operator=operator
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


class Assembly(Generic[_Input]):
    """The settings of one role on their way from sources to a dataclass.

    Args:
        model: The role's input model.
        sources: Flags, environment and file.
        role: ``server``, ``aggregator``, ``client`` or ``gateway``.
        now: Time to judge the descriptor at.
    """

    def __init__(
        self, model: type[_Input], sources: Sources, *, role: str, now: datetime | None
    ) -> None:
        self._model = model
        self._sources = sources
        self._role = role
        self._effective: list[Effective] = []
        self._warnings: list[str] = []
        # 2. A committee secret belongs to servers only; it is refused unread.
        if role != "server":
            self._refuse_committee_secret()
        # 3. Each setting for itself.
        self.given: _Input = sources.read(model)
        self._check_role()
        self._profile: Profile = self.pick("profile", self.given.profile, "development")
        self._check_signed()
        # 4. The descriptor.
        file = self.given.descriptor
        if file is None:
            raise self.missing("descriptor")
        self.pick("descriptor", file, file)
        self._file = file
        self.trusted = read_descriptor(file, now=now, operator=self.given.operator)
        # 5. Instance and universe.
        self._check_name()
        self._check_environment()

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor, already trusted."""
        return self.trusted.descriptor

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment as handed in."""
        return self._sources.environ

    @property
    def is_production(self) -> bool:
        """Whether the production profile is on."""
        return self._profile == "production"

    @property
    def effective(self) -> tuple[Effective, ...]:
        """Every setting picked so far, with its origin, and whatever else was given."""
        picked = {item.name for item in self._effective}
        rest = [
            Effective(name.upper(), _shown(value), self._origin_of(name))
            for name, value in self.given
            if value is not None and name.upper() not in picked
        ]
        return (*self._effective, *rest)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was let pass, one line each."""
        return tuple(self._warnings)

    def pick(self, name: str, value: _T | None, default: _T, *, origin: str = "default") -> _T:
        """Choose the given value, else the default, and remember where it came from."""
        chosen = default if value is None else value
        source = origin if value is None else self._sources.origin(name) or origin
        shown = f"{chosen}ms" if name in _DURATIONS else _shown(chosen)
        self.note(name, shown, source)
        return chosen

    def note(self, name: str, shown: str, origin: str) -> None:
        """Remember how a setting took effect."""
        self._effective.append(Effective(name.upper(), shown, origin))

    def warn(self, line: str) -> None:
        """Remember something the operator should change."""
        self._warnings.append(line)

    def missing(self, name: str) -> ConfigError:
        """Return the error for a setting the role cannot do without."""
        # How a machine attests is no business of a command line: only a publisher has flags for it.
        flag = "" if name.startswith("tdx_") else f"--{name}, "
        return ConfigError(
            f"setting {name.upper()} is required and was not given",
            hint=f"{fix_of(self._model.model_fields[name])} ({flag}ZIPNET_{name.upper()})",
        )

    def common(self, *, transport: TransportName) -> CommonParts:
        """Return what every role has; ``transport`` is the role's default for dialling."""
        given = self.given
        for key in void_allowances(given):
            self.warn(f"{key.upper()} is not its exact sentence, so it allows nothing")
        return {
            "instance": self.pick(
                "instance", given.instance, self.descriptor.name, origin=_DESCRIPTOR
            ),
            "universe": self.pick(
                "universe", given.universe, self.descriptor.universe, origin=_DESCRIPTOR
            ),
            "descriptor": self.trusted,
            "descriptor_file": self._file,
            "operator": self._operator(),
            "transport": self.pick("transport", given.transport, transport),
            "server_endpoints": self._server_endpoints(),
            "profile": self._profile,
            "log_level": self.pick("log_level", given.log_level, "info"),
            "platform": self._platform(),
            "config_version": given.config_version if self._sources.signed else None,
            "allowed": allowed_by(given),
            "config": self._sources.config,
        }

    def node_parts(self, given: NodeInput, node: NodeEntry) -> NodeParts:
        """Return what nodes have, checked against each other."""
        metrics = self.pick("metrics", given.metrics, DEFAULT_METRICS)
        if not metrics.is_loopback and given.allow_public_metrics != ALLOW_PUBLIC_METRICS:
            raise ConfigError(
                "setting METRICS: the host is not loopback, so others could read it",
                hint="write 127.0.0.1:PORT, or see allow_public_metrics in docs/reference",
            )
        registered = Endpoint(node.host, node.port)
        return {
            "listen": self.pick("listen", given.listen, registered, origin=_DESCRIPTOR),
            "metrics": metrics,
            "cadence": self._cadence(given),
            "access": self._access(given),
            "admin_uids": self.pick("admin_uids", given.admin_uids, ()),
            "trace_file": self.pick("trace_file", given.trace_file, None),
            "trace_collector": self._trace_collector(given),
            "bounds": self.bounds(given.limits),
        }

    def _trace_collector(self, given: NodeInput) -> Endpoint | None:
        endpoint = given.trace_collector
        if endpoint is not None and not endpoint.is_loopback:
            raise ConfigError(
                f"setting TRACE_COLLECTOR: {endpoint} is not on this machine",
                hint="run a collector beside the node, or write TRACE_FILE for one that reads it",
            )
        return self.pick("trace_collector", endpoint, None)

    def bounds(self, given: Mapping[str, float] | None) -> WallBounds:
        """Return what callers may have: the defaults, with these changes."""
        limits = given or {}
        shown = ", ".join(f"{name}={value:g}" for name, value in limits.items())
        self.pick("limits", shown or None, "none")
        return bounds_of(limits)

    def capability(self, file: Path | None) -> bytes | None:
        """Read the token a role shows; None when it was not given (row L2)."""
        if file is None:
            self.note("token", "not set", "default")
            return None
        token, _issuer = read_token_file(file)
        self.note("token", "set (file)", self._sources.origin("token") or "default")
        return token

    def _access(self, given: NodeInput) -> AccessTerms:
        issuers = () if given.token_issuers is None else given.token_issuers
        roles: frozenset[CapabilityRole] = given.token_roles or frozenset()
        shown = ",".join(key.hex()[:16] for key in issuers)
        self.note("token_issuers", shown or "not set", self._origin_of("token_issuers"))
        self.note("token_roles", ",".join(sorted(roles)) or "none", self._origin_of("token_roles"))
        return AccessTerms(issuers, roles)

    def _origin_of(self, name: str) -> str:
        return self._sources.origin(name) or "default"

    def secret(self, name: str) -> Secret | None:
        """Read a secret if it was given; None when it was not."""
        route = find_secret(name, self._sources)
        if route is None:
            self.note(name, "not set", "default")
            return None
        loaded = load_secret(route, production=self.is_production)
        self._warnings.extend(loaded.warnings)
        self.note(name, loaded.shown, route.origin)
        return loaded.secret

    def later_secret(self, name: str, *, beside: str) -> LaterSecret:
        """Return where a secret will be that need not be there yet."""
        later = find_later_secret(name, self._sources, beside=beside, production=self.is_production)
        loaded = later.look()
        if loaded is None:
            self.note(name, "not set", "default")
        else:
            loaded.secret.close()
            self._warnings.extend(loaded.warnings)
            self.note(name, loaded.shown, "" if later.route is None else later.route.origin)
        return later

    def require_committee(self, secret: Secret, later: LaterSecret) -> None:
        """Refuse a committee secret that is not the one the descriptor names (protocol.md §3)."""
        if self._fingerprint_matches(secret):
            return
        upcoming = later.look()
        if upcoming is not None:
            with upcoming.secret as other:
                if self._fingerprint_matches(other):
                    return
        raise PolicyMismatchError(
            f"setting COMMITTEE_SECRET is not the committee secret of {self.descriptor.name}",
            hint=f"its fingerprint is not the one in {self._file}: take the committee's file",
        )

    def refuse_committee_as_own(self, secret: Secret) -> None:
        """Refuse the committee secret in the place of the node's own (rows Z13, Z15)."""
        if self._fingerprint_matches(secret):
            raise ConfigError(
                "setting SECRET holds the committee secret, not a secret of its own",
                hint="write the file `zipnet keygen node` wrote",
            )

    def not_registered(self, identity: Identity) -> ConfigError:
        """Return the error for an identity the descriptor does not list in this role."""
        return ConfigError(
            f"setting SECRET: the descriptor registers no {self._role} with this identity",
            hint=f"it has peer id {format_peer_id(identity.peer_id)}",
        )

    def _fingerprint_matches(self, secret: Secret) -> bool:
        mine = committee_fingerprint(secret, self.descriptor.instance)
        return mine in (self.descriptor.committee_fingerprint, self.descriptor.secret_fingerprint)

    def _refuse_committee_secret(self) -> None:
        route = find_secret("committee_secret", self._sources)
        if route is not None:
            raise ConfigError(
                f"setting COMMITTEE_SECRET: {_article(self._role)} was given a committee secret "
                f"by {route.origin}",
                hint="only committee servers hold it: remove it here",
            )

    def _check_role(self) -> None:
        role = self.pick("role", self.given.role, None)
        if role is not None and role != self._role:
            raise ConfigError(
                f"setting ROLE: the settings are for {_article(role)}, not for "
                f"{_article(self._role)}",
                hint="give this program its own settings, or correct the role",
            )

    def _check_name(self) -> None:
        name, universe = self.given.instance, self.given.universe
        if self._role in _NODES:
            if name is None:
                raise self.missing("instance")
            universe = universe or DEFAULT_UNIVERSE
        if name is not None and name != self.descriptor.name:
            raise UnknownInstanceError(
                f"setting INSTANCE is {name}, but {self._file} describes {self.descriptor.name}",
                hint="give the descriptor of that instance, or correct the name",
            )
        if universe is not None and universe != self.descriptor.universe:
            raise UnknownInstanceError(
                f"setting UNIVERSE is {universe}, but {self._file} is of universe "
                f"{self.descriptor.universe}",
                hint="set UNIVERSE to the descriptor's",
            )

    def _check_signed(self) -> None:
        """Refuse a settings file that production, or its own number, would need signed (row A9)."""
        given, file = self.given, self._sources.config
        if file is None:
            return
        self.pick("config_key", given.config_key, None)
        self.pick("config_version", given.config_version, None)
        if self._sources.signed:
            if given.config_version is None:
                raise self.missing("config_version")
            return
        if self.is_production and given.allow_unsigned_settings != ALLOW_UNSIGNED_SETTINGS:
            raise ConfigError(
                f"setting CONFIG_KEY: nobody's signature is asked of {file}, "
                "which production refuses",
                hint="sign it (zipnet config sign) and name the signer's public file as "
                "ZIPNET_CONFIG_KEY, or see allow_unsigned_settings in docs/reference/settings.md",
            )

    def _check_environment(self) -> None:
        if self.environ.get("SSLKEYLOGFILE"):
            problem = "SSLKEYLOGFILE is set: it asks TLS libraries to write traffic keys to a file"
            if self.is_production:
                raise ConfigError(f"{problem}, which production refuses", hint="unset it")
            self.warn(f"{problem} — unset it")
        for line in self._sources.mistyped():
            if self.is_production:
                raise ConfigError(line, hint="correct its name, or unset it")
            self.warn(f"{line} — correct its name, or unset it")

    def _operator(self) -> PeerId | None:
        operator = self.given.operator
        if operator is None:
            self.note("operator", "not pinned", "default")
            if self.is_production:
                self.warn("OPERATOR is not pinned: the descriptor is trusted on its own word")
            return None
        return self.pick("operator", operator, operator)

    def _platform(self) -> PlatformConfig | None:
        """How this machine attests (protocol.md §7); production never trusts an emulator."""
        given, terms = self.given, self.descriptor.attestation
        names = (
            "tdx_source",
            "tdx_collateral",
            "tdx_policy",
            "tdx_emulator",
            "tdx_emulated_mrtd",
        )
        self.note("tdx_mode", terms.mode.value, _DESCRIPTOR)
        if terms.mode is AttestationMode.EMULATED and self.is_production:
            raise ConfigError(
                "setting DESCRIPTOR: its quotes are emulated, which production refuses",
                hint="an emulated group is for development: set PROFILE to development",
            )
        if terms.mode is AttestationMode.OFF:
            for name in names:
                if getattr(given, name) is not None:
                    self.warn(f"{name.upper()} is set, but the descriptor asks for no quotes")
            return None
        for name in names[:4]:
            self.pick(name, getattr(given, name), None)
        source = None if given.tdx_source is None else QuoteSourceKind(given.tdx_source)
        emulated = source is QuoteSourceKind.EMULATOR
        if source is not None and emulated != (terms.mode is AttestationMode.EMULATED):
            raise ConfigError(
                f"setting TDX_SOURCE is {source.value}, the descriptor's tdx.mode is "
                f"{terms.mode.value}",
                hint="an emulated group takes emulated quotes only, and no other group takes any",
            )
        if source is None and self._gate() in terms.policies:
            raise self.missing("tdx_source")
        second = self.pick("tdx_second_opinion", given.tdx_second_opinion, "no") == "yes"
        if second and terms.mode is AttestationMode.EMULATED:
            raise ConfigError(
                "setting TDX_SECOND_OPINION: the second verifier knows Intel's root only",
                hint="leave it unset in an emulated group",
            )
        config = PlatformConfig(
            second_opinion=second,
            source=source,
            collateral=given.tdx_collateral,
            policy=given.tdx_policy,
            emulator=given.tdx_emulator,
            emulated_mrtd=given.tdx_emulated_mrtd,
        )
        if self._gate() in terms.policies:
            require_complete(config)
        return config

    def _gate(self) -> Gate | None:
        # A reader loads a client's settings and shows nothing: publishers check for themselves.
        gates = {"server": Gate.COMMITTEE, "aggregator": Gate.AGGREGATOR}
        return gates.get(self._role)

    def _server_endpoints(self) -> tuple[Endpoint, ...]:
        own = tuple(Endpoint(node.host, node.port) for node in self.descriptor.servers)
        chosen = self.pick("bootstrap", self.given.bootstrap, own, origin=_DESCRIPTOR)
        if len(chosen) != len(own):
            raise ConfigError(
                f"setting BOOTSTRAP has {len(chosen)} addresses, the committee has {len(own)}",
                hint="write one host:port for each server, in the descriptor's order",
            )
        return chosen

    def _cadence(self, given: NodeInput) -> Cadence:
        own = self.descriptor.cadence
        values = {
            name: self.pick(
                name, getattr(given, name), getattr(own, f"{name}_ms"), origin=_DESCRIPTOR
            )
            for name in _DURATIONS
        }
        try:
            return Cadence(**{f"{name}_ms": value for name, value in values.items()})
        except ConfigError as error:
            raise ConfigError(
                f"settings ROUND_PERIOD, FOLD_DEADLINE, ROUND_DEADLINE: {error}", hint=error.hint
            ) from error


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return format_peer_id(PeerId(value))
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return "not set" if value is None else str(value)


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
