"""The public half of an identity as a file: what ``zipnet keygen`` writes beside a secret.

The file is TOML with ``peer_id``, ``identity`` and, for nodes, ``certificate`` (both base64). The
peer id is redundant on purpose: a person compares it, and a damaged file is noticed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdx.policy import load_document
from zipnet.errors import ConfigError, RemoteProtocolError, VerificationError
from zipnet.protocol.identity import PublicIdentity
from zipnet.protocol.ids import PeerId, format_peer_id
from zipnet.settings.bounded import read_bounded
from zipnet.transport.certificate import certificate_public_key

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PublicFile", "format_public_file", "read_public_file"]

_MAX_PUBLIC_BYTES = 16 * 1024
_KINDS = ("node", "operator")


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A public identity and, for a node, its TLS certificate.

    Attributes:
        kind: ``node`` or ``operator``.
        identity: Both public keys.
        certificate: DER of the node's certificate; empty for an operator.
    """

    kind: str
    identity: PublicIdentity
    certificate: bytes = field(repr=False)

    @property
    def peer_id(self) -> PeerId:
        """Id derived from both keys."""
        return self.identity.peer_id


def format_public_file(public: PublicFile) -> str:
    """Write the file's text."""
    lines = [
        f"# Public identity of a zipnet {public.kind}. Safe to hand out.",
        f'kind = "{public.kind}"',
        f'peer_id = "{format_peer_id(public.peer_id)}"',
        f'identity = "{base64.b64encode(public.identity.encode()).decode()}"',
    ]
    if public.certificate:
        lines.append(f'certificate = "{base64.b64encode(public.certificate).decode()}"')
    return "\n".join(lines) + "\n"


def read_public_file(path: Path, *, kind: str) -> PublicFile:
    """Read what :func:`format_public_file` wrote, and check that its parts belong together.

    Args:
        path: The file.
        kind: ``node`` or ``operator``; another kind is refused.

    Raises:
        ConfigError: When it cannot be read, has missing or unknown keys, or its parts disagree.
    """
    return parse_public(
        path, read_bounded(path, _MAX_PUBLIC_BYTES, what="public identity"), kind=kind
    )


def parse_public(path: Path, data: bytes, *, kind: str) -> PublicFile:
    """Parse the bytes of a public file; ``path`` is named in the errors, those of reading one."""
    try:
        table = load_document(data.decode("utf-8"))
    except ValueError:
        raise ConfigError(
            f"public identity {path} is not TOML", hint="name the .pub file `zipnet keygen` wrote"
        ) from None
    known = {"kind", "peer_id", "identity"} | ({"certificate"} if kind == "node" else set())
    if set(table) != known or table["kind"] != kind:
        raise ConfigError(
            f"public identity {path} is not of kind {kind}",
            hint=f"name the .pub file `zipnet keygen {kind}` wrote",
        )
    try:
        identity = PublicIdentity.decode(base64.b64decode(table["identity"], validate=True))
        certificate = base64.b64decode(table.get("certificate", ""), validate=True)
        belongs = not certificate or certificate_public_key(certificate) == identity.ed25519
    except (binascii.Error, TypeError, ValueError, RemoteProtocolError, VerificationError):
        raise ConfigError(f"public identity {path} is damaged", hint="write it again") from None
    if not belongs or table["peer_id"] != format_peer_id(identity.peer_id):
        raise ConfigError(
            f"public identity {path}: peer id, keys and certificate do not belong together",
            hint="write it again with `zipnet keygen`",
        )
    return PublicFile(kind, identity, certificate)
