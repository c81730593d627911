"""The table of checks: what production promises, and which setting breaks each promise.

Pure: a check is a function of the subject. Those about the host are in
:mod:`zipnet.posture.host_checks`. What the loader of the settings refuses by itself, such as a
secret that others can read, never gets as far as this table.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.errors import VerificationError
from zipnet.posture.host_checks import HOST_CHECKS
from zipnet.posture.subject import Check, Problem
from zipnet.protocol.attestation import AttestationMode
from zipnet.protocol.key_ages import KEY_LIFE, ages_for
from zipnet.settings.load import PRODUCTION_MIN_PARTICIPANTS
from zipnet.settings.types import (
    CommonSettings,
    GatewaySettings,
    MicroSettings,
    NodeSettings,
    ServerSettings,
)
from zipnet.transport.certificate import certificate_public_key

if TYPE_CHECKING:
    from zipnet.posture.subject import Subject

__all__ = ["CHECKS"]

_NOBODY: Final = 65_534
_LOOSE: Final = 8


def _signed(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, CommonSettings) or settings.config is None:
        return None
    if settings.config_version is not None:
        return ()
    fix = "sign it (zipnet config sign) and name the signer as ZIPNET_CONFIG_KEY"
    return (Problem("config_key", "nobody's signature is asked of the settings file", fix),)


def _operator(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, CommonSettings):
        return None
    if settings.operator is not None:
        return ()
    text = "the descriptor is trusted on its own word"
    return (Problem("operator", text, "write the peer id of the operator you know"),)


def _attested(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, CommonSettings):
        return None
    mode = settings.descriptor.descriptor.attestation.mode
    if mode is AttestationMode.REQUIRED:
        return ()
    text = f"the descriptor's tdx.mode is {mode.value}: nobody proves what code the servers run"
    return (Problem("descriptor", text, "take a descriptor that requires TDX quotes"),)


def _platform(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    platform = settings.platform if isinstance(settings, CommonSettings) else None
    if platform is None:
        return None
    left = {"tdx_emulator": platform.emulator, "tdx_emulated_mrtd": platform.emulated_mrtd}
    problems = [
        Problem(key, "it is of an emulated machine", "remove it")
        for key, value in left.items()
        if value is not None
    ]
    if platform.collateral is None:
        text = "nothing says which platforms are up to date, so no quote can be judged"
        problems.append(Problem("tdx_collateral", text, "write the file `tdx fetch` wrote"))
    return tuple(problems)


def _participants(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, ServerSettings):
        return None
    if settings.min_participants >= PRODUCTION_MIN_PARTICIPANTS:
        return ()
    text = f"rounds of {settings.min_participants} participants hide little"
    return (Problem("min_participants", text, f"write {PRODUCTION_MIN_PARTICIPANTS} or more"),)


def _fault_domains(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, CommonSettings):
        return None
    servers = settings.descriptor.descriptor.servers
    silent = [node.name for node in servers if not node.fault_domain]
    counted = Counter(node.fault_domain for node in servers if node.fault_domain)
    problems = [
        Problem(
            "descriptor",
            f"{count} servers of the committee stand in the fault domain {domain}",
            "move them apart",
        )
        for domain, count in counted.items()
        if count > 1
    ]
    if silent:
        text = f"the descriptor does not say in which fault domain {', '.join(silent)} stand"
        fix = "have the operator declare it: --server NAME=HOST:PORT=PUBFILE,fault-domain=WORD"
        problems.append(Problem("descriptor", text, fix))
    return tuple(problems)


def _key_ages(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    old = [
        age
        for age in ages_for(settings.descriptor, settings.identity.peer_id)
        if age.due.timestamp() <= subject.host.now_s
    ]
    if not old:
        return ()
    kinds = ", ".join(age.kind for age in old)
    since = min(age.since for age in old)
    text = f"{kinds}: in use since {since:%Y-%m-%d}, more than {KEY_LIFE.days} days"
    return (Problem("descriptor", text, f"rotate it: zipnet rotate {old[0].kind}"),)


def _metrics(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    if settings.metrics.is_loopback:
        return ()
    return (Problem("metrics", "others can read health and metrics", "write 127.0.0.1:PORT"),)


def _gateway(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, GatewaySettings | MicroSettings):
        return None
    if settings.gateway.is_loopback:
        return ()
    return (Problem("gateway", "others can reach the gateway", "write 127.0.0.1:PORT"),)


def _own_authors(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, GatewaySettings):
        return None
    if settings.publish_for_others is None:
        return ()
    text = "the gateway learns who its authors are"
    return (Problem("allow_publishing_for_others", text, "remove the key"),)


def _log_level(subject: Subject) -> tuple[Problem, ...] | None:
    if subject.settings.log_level != "debug":
        return ()
    text = "libraries write about single connections at this level"
    return (Problem("log_level", text, "write info"),)


def _cadence(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    group = settings.descriptor.descriptor.cadence
    return tuple(
        Problem(
            key,
            "it is shorter than the descriptor's, so clients in time for the others come too late",
            "leave it unset",
        )
        for key in ("round_period", "fold_deadline", "round_deadline")
        if getattr(settings.cadence, f"{key}_ms") < getattr(group, f"{key}_ms")
    )


def _bounds(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings | GatewaySettings):
        return None
    loose = [field.name for field in fields(WallBounds) if _is_loose(settings.bounds, field.name)]
    text = f"{', '.join(loose)}: more than {_LOOSE} times what the default lets a caller have"
    return (
        (Problem("limits", text, "write less; docs/wall.md says what it costs"),) if loose else ()
    )


def _is_loose(bounds: WallBounds, name: str) -> bool:
    own, usual = getattr(bounds, name), getattr(DEFAULT_BOUNDS, name)
    # The one bound that says how little is too little.
    return bool(own * _LOOSE < usual if name == "min_bytes_per_s" else own > usual * _LOOSE)


def _admin_users(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    if _NOBODY not in settings.admin_uids:
        return ()
    text = f"{_NOBODY} is nobody's user, which unrelated programs share"
    return (Problem("admin_uids", text, "name a user of your own"),)


def _own_certificate(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    own = settings.identity.ed25519_private_key().public_key().public_bytes_raw()
    with suppress(VerificationError):
        if certificate_public_key(settings.node.certificate) == own:
            return ()
    text = "the descriptor names another TLS certificate than this identity's"
    return (Problem("descriptor", text, "have the operator take the node's .pub file again"),)


CHECKS: Final = (
    Check(
        name="settings_signed",
        promise="the settings file is signed and numbered",
        judge=_signed,
        allow="allow_unsigned_settings",
    ),
    Check(name="operator_pinned", promise="the descriptor's operator is pinned", judge=_operator),
    Check(
        name="attested",
        promise="servers prove what code they run",
        judge=_attested,
        allow="allow_unattested",
    ),
    Check(
        name="platform",
        promise="quotes are judged by collateral, and none is emulated",
        judge=_platform,
    ),
    Check(
        name="participants",
        promise=f"rounds have {PRODUCTION_MIN_PARTICIPANTS} participants or more",
        judge=_participants,
        allow="allow_few_participants",
    ),
    Check(
        name="fault_domains",
        promise="every server stands in a fault domain of its own",
        judge=_fault_domains,
        allow="allow_shared_fault_domain",
    ),
    Check(
        name="mutual_tls",
        promise="the descriptor names this identity's TLS certificate",
        judge=_own_certificate,
    ),
    Check(
        name="key_ages",
        promise=f"no key has been in use for more than {KEY_LIFE.days} days",
        judge=_key_ages,
        allow="allow_old_keys",
    ),
    Check(
        name="metrics_local",
        promise="health and metrics stay on this machine",
        judge=_metrics,
        allow="allow_public_metrics",
    ),
    Check(
        name="gateway_local",
        promise="the gateway stays on this machine",
        judge=_gateway,
        allow="allow_public_gateway",
        micro=True,
    ),
    Check(
        name="own_authors",
        promise="the gateway publishes for this machine alone",
        judge=_own_authors,
        allow="allow_publishing_for_others",
    ),
    Check(
        name="quiet_logs", promise="logs say nothing of single links", judge=_log_level, micro=True
    ),
    Check(name="cadence", promise="rounds take the time they are due", judge=_cadence),
    Check(name="bounds", promise="what callers may have is bounded", judge=_bounds),
    Check(name="admin_users", promise="the admin socket is for named users", judge=_admin_users),
    *HOST_CHECKS,
)
"""Every check, in the order they are told."""
