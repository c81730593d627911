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
    from collections.abc import Callable

    from zipnet.observe.health import Health
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import Digest
    from zipnet.settings import ServerSettings
    from zipnet.settings.secretfiles import LaterSecret
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


def require_committee_secret(
    settings: ServerSettings, terms: SessionTerms, given: TrustedDescriptor
) -> CommitteeSecrets:
    """Go by the version in force, and refuse to start without the secret it names.

    A server that was down while the secret was rotated has the present one, and the present file of
    the descriptor, but went by neither yet: it is let in by that secret, and hears of the version.

    Args:
        settings: Its settings, with the newest version it went by.
        terms: What it says in handshakes.
        given: The version in the file it was given.

    Raises:
        PolicyMismatchError: It is not here.
    """
    secrets = terms.committee_secret
    assert isinstance(secrets, CommitteeSecrets)
    secrets.use(settings.descriptor)
    ahead = given.version > settings.descriptor.version and secrets.holds(given)
    if not ahead and not secrets.holds(settings.descriptor):
        raise PolicyMismatchError(
            "setting COMMITTEE_SECRET is not the committee secret in force, which version "
            f"{settings.descriptor.version} of the descriptor or one before it named",
            hint="it was rotated: take the committee's present file",
        )
    return secrets


async def watch_secret(
    secrets: CommitteeSecrets,
    later: LaterSecret,
    health: Health,
    on_read: Callable[[Digest], None],
) -> None:
    """Take the next secret as soon as its file is there; without the one in force be not ready.

    A server that was not given it in time goes on with its links and signs nothing until then.

    Args:
        secrets: What is held.
        later: Where the next one will be.
        health: Where the condition ``committee_secret`` is kept.
        on_read: Told the fingerprint of a secret that was read, for the audit trail.
    """
    seen: _Mark | None = None
    while True:
        mark = await asyncio.to_thread(_mark_of, later)
        if mark is not None and mark != seen:
            try:
                loaded = await asyncio.to_thread(later.look)
            except ConfigError as error:  # said once for each change of the file
                _log.error("next_secret_refused", error=str(error))
            else:
                if loaded is not None:
                    on_read(secrets.add(loaded.secret))
        seen = mark
        health.set(CONDITION, ok=secrets.in_force is not None, reason="not_given")
        await asyncio.sleep(_LOOK_S)


def _mark_of(later: LaterSecret) -> _Mark | None:
    """Return what tells one state of the file from another; None while it is not there."""
    if later.route is None or not isinstance(later.route.source, FileSource):
        return None
    try:
        status = later.route.source.path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
