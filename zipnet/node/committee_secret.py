"""The committee secret of a running server, and the one that takes its place (decision 0009)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, PolicyMismatchError
from zipnet.observe.log import get_logger
from zipnet.protocol.committee_secrets import CommitteeSecrets
from zipnet.protocol.secret import Secret
from zipnet.settings.secretsources import FileSource

if TYPE_CHECKING:
    from zipnet.observe.health import Health
    from zipnet.settings import ServerSettings
    from zipnet.settings.secretfiles import LaterSecret, LoadedSecret
    from zipnet.transport.session import SessionTerms

__all__ = ["CONDITION", "committee_secrets_of", "require_committee_secret", "watch_secret"]

CONDITION: Final = "committee_secret"
_LOOK_S: Final = 1.0
_log = get_logger(__name__)
_Mark = tuple[int, int, int]


def committee_secrets_of(settings: ServerSettings) -> CommitteeSecrets:
    """Return what a server was given of the committee's secrets, in buffers of its own."""
    with settings.committee_secret.reveal() as view:
        given = [Secret(view)]
    later = settings.next_committee_secret.look()
    if later is not None:
        given.append(later.secret)
    return CommitteeSecrets(settings.descriptor, given)


def require_committee_secret(settings: ServerSettings, terms: SessionTerms) -> CommitteeSecrets:
    """Go by the version in force, and refuse to start without the secret it names.

    Raises:
        PolicyMismatchError: It is not here.
    """
    secrets = terms.committee_secret
    assert isinstance(secrets, CommitteeSecrets)
    secrets.use(settings.descriptor)
    if not secrets.holds(settings.descriptor):
        raise PolicyMismatchError(
            "setting COMMITTEE_SECRET is not the committee secret in force, which version "
            f"{settings.descriptor.version} of the descriptor or one before it named",
            hint="it was rotated: take the committee's present file",
        )
    return secrets


async def watch_secret(secrets: CommitteeSecrets, later: LaterSecret, health: Health) -> None:
    """Take the next secret as soon as its file is there; without the one in force be not ready.

    A server that was not given it in time goes on with its links and signs nothing until then.
    """
    seen: _Mark | None = None
    while True:
        missing = secrets.in_force is None
        try:
            seen, loaded = await asyncio.to_thread(_look, later, seen)
        except ConfigError as error:
            loaded = None
            _log.error("next_secret_refused", error=str(error))
        if loaded is not None:
            secrets.add(loaded.secret)
        ok = secrets.in_force is not None
        if ok and missing:
            _log.info("committee_secret_given")
        health.set(CONDITION, ok=ok, reason="not_given")
        await asyncio.sleep(_LOOK_S)


def _look(later: LaterSecret, seen: _Mark | None) -> tuple[_Mark | None, LoadedSecret | None]:
    """Read the file if it is there and another one than was seen."""
    if later.route is None or not isinstance(later.route.source, FileSource):
        return None, None
    try:
        status = later.route.source.path.stat()
    except OSError:
        return None, None
    mark = (status.st_ino, status.st_mtime_ns, status.st_size)
    return mark, None if mark == seen else later.look()
