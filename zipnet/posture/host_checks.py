"""Checks of the host a node is about to run on: files, memory, sandbox, privileges, age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.posture.subject import Check, Problem
from zipnet.settings.types import (
    AggregatorSettings,
    GatewaySettings,
    NodeSettings,
    ServerSettings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.posture.subject import Subject

__all__ = ["HOST_CHECKS", "MAX_BUILD_DAYS", "MAX_INPUTS_DAYS"]

MAX_BUILD_DAYS: Final = 45
MAX_INPUTS_DAYS: Final = 90
_OTHERS: Final = 0o077
_CAP_NET_BIND_SERVICE: Final = 10
_CAP_IPC_LOCK: Final = 14
_HARMLESS: Final = 1 << _CAP_NET_BIND_SERVICE | 1 << _CAP_IPC_LOCK


def _open_to_others(subject: Subject, key: str, path: Path | None) -> tuple[Problem, ...]:
    kept = None if path is None else subject.host.kept.get(path)
    if kept is None or not kept.mode & _OTHERS:
        return ()
    fix = f"run: chmod go= {path}"
    return (Problem(key, f"{path} is open to others (mode {kept.mode:04o})", fix),)


def _state(subject: Subject) -> tuple[Problem, ...] | None:
    settings, host = subject.settings, subject.host
    if not isinstance(settings, ServerSettings):
        return None
    if settings.state is None:
        return _amnesia(subject)
    problems = list(_open_to_others(subject, "state", settings.state))
    kept = host.kept.get(settings.state)
    if kept is not None and kept.in_memory:
        text = f"{settings.state} is in memory: a restart of the machine forgets what was released"
        fix = "give a folder on a disk, or none at all for a server without memory"
        problems.append(Problem("state", text, fix))
    if kept is not None and kept.in_checkout:
        text = f"{settings.state} is inside a git checkout"
        problems.append(Problem("state", text, "move it out of the checkout"))
    return tuple(problems)


def _amnesia(subject: Subject) -> tuple[Problem, ...]:
    if subject.host.memory_locks or not subject.host.swap:
        return ()
    text = "a server without memory may be swapped to a disk on this machine"
    return (Problem("state", text, "allow CAP_IPC_LOCK, raise LimitMEMLOCK, or turn swap off"),)


def _admin(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, NodeSettings):
        return None
    return _open_to_others(subject, "admin", settings.admin)


def _token(subject: Subject) -> tuple[Problem, ...] | None:
    settings = subject.settings
    if not isinstance(settings, AggregatorSettings | GatewaySettings):
        return None
    return _open_to_others(subject, "token", settings.capability_file)


def _apart(subject: Subject) -> tuple[Problem, ...] | None:
    if not isinstance(subject.settings, NodeSettings):
        return None
    return tuple(
        Problem(f"{name}_file", f"{file} uses the same secret", "make one for each: zipnet keygen")
        for name, file in subject.host.reused
    )


def _sandbox(subject: Subject) -> tuple[Problem, ...] | None:
    if isinstance(subject.settings, GatewaySettings):
        return None  # it holds no secret of the committee's, and is confined by its unit
    if not subject.host.no_filter:
        return ()
    return (Problem("allow_no_sandbox", subject.host.no_filter, "install the package libseccomp2"),)


def _privileges(subject: Subject) -> tuple[Problem, ...] | None:
    if not isinstance(subject.settings, NodeSettings):
        return None
    if subject.host.uid == 0:
        fix = "run it as a user of its own (ops/systemd)"
        return (Problem("allow_privileges", "it runs as root", fix),)
    if subject.host.capabilities & ~_HARMLESS:
        text = f"it holds capabilities ({subject.host.capabilities:#x})"
        return (Problem("allow_privileges", text, "drop them all (ops/systemd)"),)
    return ()


def _read_only_system(subject: Subject) -> tuple[Problem, ...] | None:
    if not isinstance(subject.settings, NodeSettings):
        return None
    if not subject.host.system_writable:
        return ()
    text = f"{', '.join(subject.host.system_writable)} is not mounted read-only"
    fix = "ProtectSystem=strict in the unit, or a read-only root in the container"
    return (Problem("allow_writable_system", text, fix),)


def _build_age(subject: Subject) -> tuple[Problem, ...] | None:
    if not isinstance(subject.settings, NodeSettings):
        return None
    age, problems = subject.host.build, []
    if age.build_days is None:
        problems.append("nobody knows when this build was made")
    elif age.build_days > MAX_BUILD_DAYS:
        problems.append(f"this build is {age.build_days:.0f} days old")
    if age.inputs_days is not None and age.inputs_days > MAX_INPUTS_DAYS:
        problems.append(f"the packages it is made of were chosen {age.inputs_days:.0f} days ago")
    fix = "build and install it anew"
    return tuple(Problem("allow_old_build", text, fix) for text in problems)


HOST_CHECKS: Final = (
    Check(
        name="state_kept", promise="state is kept as its profile says, from others", judge=_state
    ),
    Check(name="admin_closed", promise="the admin folder is closed to others", judge=_admin),
    Check(name="token_closed", promise="the token is closed to others", judge=_token),
    Check(
        name="secrets_apart",
        promise="no other settings file beside this one uses its secrets",
        judge=_apart,
    ),
    Check(
        name="sandbox",
        promise="system calls a node never needs can be refused",
        judge=_sandbox,
        allow="allow_no_sandbox",
        micro=True,
    ),
    Check(
        name="build_age",
        promise=f"the build is at most {MAX_BUILD_DAYS} days old, its inputs {MAX_INPUTS_DAYS}",
        judge=_build_age,
        allow="allow_old_build",
    ),
    Check(
        name="no_privileges",
        promise="it runs as a user without capabilities",
        judge=_privileges,
        allow="allow_privileges",
        at_start=True,
    ),
    Check(
        name="read_only_system",
        promise="the system is mounted read-only",
        judge=_read_only_system,
        allow="allow_writable_system",
        at_start=True,
    ),
)
"""The checks of the host, in the order they are told."""
