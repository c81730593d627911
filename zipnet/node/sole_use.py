"""One process of a host uses a secret: said by an abstract socket, which dies with its holder.

Two production nodes on one host must share neither identity nor committee secret (rows Z5, Z10).
Their settings may be in different places and their files closed to each other, so each binds a
name made of the secret by a one-way function. The kernel gives a name to one process at a time, to
processes of all users alike, and takes it back when the process ends, however that comes.

It reaches as far as the network namespace: two containers do not see each other's names.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.protocol.ids import keyed
from zipnet.settings.types import ServerSettings

if TYPE_CHECKING:
    from zipnet.protocol.secret import Secret
    from zipnet.settings.types import NodeSettings

__all__ = ["hold_secrets"]


def hold_secrets(settings: NodeSettings) -> None:
    """Take a node's secrets for this process, until it ends.

    Raises:
        ConfigError: When another process of this host has one of them.
    """
    _hold("SECRET", settings.secret, "a node has a secret of its own: zipnet keygen node")
    if isinstance(settings, ServerSettings):
        _hold(
            "COMMITTEE_SECRET",
            settings.committee_secret,
            "one secret for each instance, and one of its servers on a host",
        )


def _hold(setting: str, secret: Secret, hint: str) -> None:
    with secret.reveal() as view:
        name = keyed("sole-use", view).hex()
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0zipnet/{name}")
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(
                f"setting {setting}: this host does not say whether it is used twice: "
                f"{error.strerror}"
            ) from error
        raise ConfigError(
            f"setting {setting}: another process of this host uses the same secret", hint=hint
        ) from None
    # Nobody closes it: it is held as long as the process lives.
    held.detach()
