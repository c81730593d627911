"""What a posture is judged from, and what a judgement looks like: values only.

A check sees settings that were loaded and facts of the host that were probed; it asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipnet.settings.types import CommonSettings, MicroSettings

__all__ = [
    "BuildAge",
    "Check",
    "Finding",
    "HostFacts",
    "Keeping",
    "Problem",
    "State",
    "Subject",
]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a file or folder that matters is kept.

    Attributes:
        mode: Permission bits.
        uid: Its owner.
        in_memory: Whether its filesystem forgets when the machine stops.
        in_checkout: Whether it lies inside a git checkout.
    """

    mode: int
    uid: int
    in_memory: bool = False
    in_checkout: bool = False


@dataclass(frozen=True, slots=True)
class BuildAge:
    """How old what runs is.

    Attributes:
        build_days: Days since it was built or installed; None where nobody knows.
        inputs_days: Days since its locked inputs were chosen; None where nobody knows.
    """

    build_days: float | None = None
    inputs_days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What was found on the host.

    Attributes:
        uid: The user this process acts as.
        capabilities: Effective capabilities, as a bit set.
        no_filter: Why system calls cannot be filtered, empty where they can.
        system_writable: Folders of the system that this process could write to.
        memory_locks: Whether all memory may be kept from swap.
        swap: Whether the machine has swap at all.
        build: How old the build is.
        now_s: What the clock says, Unix seconds.
        kept: How files and folders named in the settings are kept, by path; those there are.
        reused: Secrets that another settings file on this host uses as well: the setting's name,
            and that file.
    """

    uid: int
    capabilities: int
    no_filter: str
    system_writable: tuple[str, ...]
    memory_locks: bool
    swap: bool
    build: BuildAge
    now_s: float
    kept: Mapping[Path, Keeping] = field(default_factory=dict)
    reused: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged.

    Attributes:
        settings: The settings, loaded.
        host: The host.
        starting: Whether the process that asks is the one that will run.
    """

    settings: CommonSettings | MicroSettings
    host: HostFacts
    starting: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold.

    Attributes:
        key: The setting that is to blame, as it is written in a file.
        text: What is wrong with it.
        fix: What to do.
    """

    key: str
    text: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold.

    Attributes:
        name: Its name, for people and for programs.
        promise: What holds when it is ok.
        judge: Returns what does not hold; None where the subject has nothing of the kind.
        allow: The key that lets it be weakened; None where nothing does.
        at_start: Whether only the process that will run can be judged.
        micro: Whether the micro profile asks for it too.
    """

    name: str
    promise: str
    judge: Callable[[Subject], tuple[Problem, ...] | None]
    allow: str | None = None
    at_start: bool = False
    micro: bool = False


class State(StrEnum):
    """What became of a check."""

    OK = "ok"
    VIOLATED = "violated"
    ALLOWED = "allowed"
    ADVICE = "advice"
    LATER = "at start"


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's outcome; one line of ``zipnet check``.

    Attributes:
        check: The check's name.
        state: What became of it.
        key: The setting it is about; empty where all is well.
        text: What holds, or what does not.
        fix: What to do; empty where nothing is.
    """

    check: str
    state: State
    key: str
    text: str
    fix: str = ""
