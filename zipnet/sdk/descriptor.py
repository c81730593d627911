"""From a descriptor file to something to connect with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES, parse_descriptor, trust_descriptor
from zipnet.protocol.ids import parse_peer_id

if TYPE_CHECKING:
    from os import PathLike

    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["load_descriptor"]


def load_descriptor(
    path: str | PathLike[str], *, operator: str | None = None, at: datetime | None = None
) -> TrustedDescriptor:
    """Read an instance's descriptor file and check signature and validity (protocol.md §3).

    Args:
        path: The TOML file the operator published.
        operator: Peer id (``zp1…``) the file must be signed by; None trusts the key the file names,
            which is only as good as the way the file came.
        at: The time to judge validity at, with a time zone; now when None.

    Raises:
        ConfigError: When it cannot be read, is altered, expired, or by another operator.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_DESCRIPTOR_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read descriptor {path}: {error.strerror}",
            hint="give the path of the descriptor file the operator published",
        ) from error
    expected = None if operator is None else parse_peer_id(operator)
    return trust_descriptor(
        parse_descriptor(data), now=at or datetime.now(UTC), expected_operator=expected
    )
