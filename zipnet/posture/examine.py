"""Hold a subject to a profile: findings, one for each check and problem, and the refusal to start.

Rules:

1. ``production`` asks for everything. What does not hold is violated, unless the one key that
   allows exactly this is given; then it is allowed, and said.
2. ``micro`` asks for what one process that holds every key can promise. ``development`` asks for
   nothing and gives advice.
3. A subject whose own profile is another one than it is held to violates that first.
4. What only the starting process can tell is left for then, never taken to be well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.posture.checks import CHECKS
from zipnet.posture.subject import Finding, State
from zipnet.settings.allowances import PREFIX
from zipnet.settings.types import CommonSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zipnet.posture.subject import Check, Subject
    from zipnet.settings.types import Profile

__all__ = ["examine", "require_posture"]


def examine(subject: Subject, profile: Profile) -> tuple[Finding, ...]:
    """Return what each check finds, in the order of the table.

    Args:
        subject: What to judge.
        profile: What to hold it to.
    """
    found = [_profile(subject, profile)]
    for check in CHECKS:
        if profile == "micro" and not check.micro:
            continue
        found += _findings(check, subject, profile)
    return tuple(found)


def require_posture(findings: Iterable[Finding]) -> None:
    """Refuse to go on where something is violated.

    Raises:
        ConfigError: Names the first violated key, what is wrong, and how many more there are.
    """
    violated = [finding for finding in findings if finding.state is State.VIOLATED]
    if not violated:
        return
    first = violated[0]
    more = f" (and {len(violated) - 1} more: zipnet check)" if len(violated) > 1 else ""
    raise ConfigError(
        f"setting {first.key.upper()}: {first.text}, which the profile refuses{more}",
        hint=first.fix,
    )


def _profile(subject: Subject, profile: Profile) -> Finding:
    own = subject.settings.profile
    if own == profile:
        return Finding("profile", State.OK, "", f"the settings are for {profile}")
    return Finding(
        "profile", State.VIOLATED, "profile", f"the settings are for {own}", f"write {profile}"
    )


def _findings(check: Check, subject: Subject, profile: Profile) -> Iterator[Finding]:
    allowed = _allowed(check, subject)
    if check.at_start and not subject.starting and not allowed:
        yield Finding(check.name, State.LATER, "", f"{check.promise}: judged when the node starts")
        return
    problems = check.judge(subject)
    if problems is None:
        return
    if not problems:
        # A key that allows what is not there still says what may come.
        if allowed:
            yield Finding(check.name, State.ALLOWED, check.allow or "", "nothing needs it now",
                          "remove the key")  # fmt: skip
        else:
            yield Finding(check.name, State.OK, "", check.promise)
        return
    for problem in problems:
        if profile == "development":
            yield Finding(check.name, State.ADVICE, problem.key, problem.text, problem.fix)
        elif allowed:
            yield Finding(check.name, State.ALLOWED, check.allow or "", problem.text, problem.fix)
        else:
            fix = problem.fix + (f", or see {check.allow}" if check.allow else "")
            yield Finding(check.name, State.VIOLATED, problem.key, problem.text, fix)


def _allowed(check: Check, subject: Subject) -> bool:
    settings = subject.settings
    if check.allow is None or not isinstance(settings, CommonSettings):
        return False
    return check.allow.removeprefix(PREFIX) in settings.allowed
