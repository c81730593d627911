"""The audit trail: entries in a hash chain, and signed checkpoints over all of them.

One line of text for each entry: the entry's hash, a space, and a JSON object::

    3f9c…  {"sequence":7,"at":"2026-11-21T01:00:00.000Z","event":"secret_read","fields":{…}}

Rules:

1. The hash of an entry is SHA-256 over a domain label, the hash before it and the exact bytes of
   its JSON: one changed byte anywhere, one entry left out, moved or added shows at that line.
2. A checkpoint is an entry too. It carries the number of entries before it, the Merkle root over
   their bytes (RFC 6962) and the node's hybrid signature over both, so a whole trail that was made
   anew shows as well, and any entry can be proved to somebody who holds a checkpoint alone.
3. Fields are numbers, truths and short texts from a closed list of names; no secret, no client.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from zipnet.errors import LocalProtocolError, VerificationError
from zipnet.ledger.merkle import MerkleTree
from zipnet.protocol.encoding import Writer
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, verify_hybrid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.protocol.identity import Identity, PublicIdentity

__all__ = [
    "AUDIT_FIELDS",
    "CHECKPOINT",
    "AuditEntry",
    "AuditState",
    "AuditVerifier",
    "Checkpoint",
    "make_checkpoint",
    "make_entry",
]

AUDIT_SIGNATURE_USE: Final = "audit-checkpoint"
CHECKPOINT: Final = "checkpoint"
AUDIT_FIELDS: Final = frozenset(
    {
        "reason", "count", "key_id", "setting", "source", "role", "server", "version", "posture",
        "mode", "instance", "verb", "operator", "path", "lost_bytes", "size", "root", "signature",
        "index", "first_round", "descriptor_version", "state",
    }
)  # fmt: skip
_DOMAIN: Final = b"zipnet/v1/audit-entry"
_MAX_LINE: Final = 16 * 1024
_MAX_TEXT: Final = 8 * 1024
_HASH_DIGITS: Final = 64

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry.

    Attributes:
        sequence: Its number, from 0 on.
        at: Time as RFC 3339 text in UTC, milliseconds.
        event: What happened, snake_case.
        fields: More about it.
        hash: Hash of the entry, chained over all before it.
        body: The exact JSON bytes.
    """

    sequence: int
    at: str
    event: str
    fields: Mapping[str, Value]
    hash: bytes
    body: bytes = field(repr=False)

    def line(self) -> bytes:
        """Return the entry as a line of the trail."""
        return self.hash.hex().encode() + b" " + self.body + b"\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement about the first ``size`` entries.

    Attributes:
        size: How many entries it covers.
        root: Merkle root over their bodies, 32 bytes.
    """

    size: int
    root: bytes

    def signed_bytes(self, last_hash: bytes) -> bytes:
        """Lay out what is signed: size u64, root 32, hash of the last entry covered 32."""
        return Writer().u64(self.size).fixed(self.root, 32).fixed(last_hash, 32).take()


@dataclass(slots=True)
class AuditState:
    """Where a trail stands.

    Attributes:
        tree: Merkle tree over the bodies of all entries.
        last_hash: Hash of the last entry; zeros before the first.
        since_checkpoint: Entries after the last checkpoint.
    """

    tree: MerkleTree = field(default_factory=MerkleTree)
    last_hash: bytes = bytes(32)
    since_checkpoint: int = 0

    @property
    def next_sequence(self) -> int:
        """Number of the next entry."""
        return self.tree.size

    def take(self, entry: AuditEntry) -> None:
        """Go past an entry that was made for this state."""
        self.tree.append(entry.body)
        self.last_hash = entry.hash
        self.since_checkpoint = 0 if entry.event == CHECKPOINT else self.since_checkpoint + 1


def make_entry(state: AuditState, at: str, event: str, fields: Mapping[str, Value]) -> AuditEntry:
    """Return the next entry of a trail; the state is left as it was.

    Raises:
        LocalProtocolError: When a field is not on the list or too long.
    """
    for name, value in fields.items():
        if name not in AUDIT_FIELDS or (isinstance(value, str) and len(value) > _MAX_TEXT):
            raise LocalProtocolError(f"{name!r} is no field of the audit trail")
    content = {
        "sequence": state.next_sequence,
        "at": at,
        "event": event,
        "fields": dict(sorted(fields.items())),
    }
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
    return AuditEntry(
        state.next_sequence, at, event, dict(fields), _chained(state.last_hash, body), body
    )


def make_checkpoint(state: AuditState, at: str, identity: Identity) -> AuditEntry:
    """Return a checkpoint over everything so far as the next entry."""
    point = Checkpoint(state.tree.size, state.tree.root())
    signature = identity.sign(AUDIT_SIGNATURE_USE, point.signed_bytes(state.last_hash))
    return make_entry(
        state,
        at,
        CHECKPOINT,
        {
            "size": point.size,
            "root": point.root.hex(),
            "signature": base64.b64encode(signature).decode(),
        },
    )


class AuditVerifier:
    """Reads a trail from its first line, and stops at the first that is not what was written.

    Args:
        signer: Whose checkpoints they must be; None checks the chain and the roots alone.

    Attributes:
        state: Where the trail stands after the lines read so far.
        checkpoints: How many checkpoints were verified.
    """

    def __init__(self, signer: PublicIdentity | None = None) -> None:
        self.state = AuditState()
        self.checkpoints = 0
        self._signer = signer

    def read(self, lines: Iterable[bytes]) -> None:
        """Verify lines, each with its line end.

        Raises:
            VerificationError: Naming the first line that is wrong, counted from 1.
        """
        for line in lines:
            self.read_line(line)

    def read_line(self, line: bytes) -> AuditEntry:
        """Verify one more line.

        Raises:
            VerificationError: Naming the line, counted from 1.
        """
        number = self.state.next_sequence + 1
        try:
            entry = _parse(line)
            if entry.sequence != self.state.next_sequence:
                raise VerificationError(f"it says it is entry {entry.sequence}")
            if _chained(self.state.last_hash, entry.body) != entry.hash:
                raise VerificationError("it was changed, or one before it was taken away")
            if entry.event == CHECKPOINT:
                self._check(entry)
        except VerificationError as error:
            raise VerificationError(f"line {number} of the audit trail: {error}") from error
        self.state.take(entry)
        return entry

    def _check(self, entry: AuditEntry) -> None:
        point, signature = _parse_checkpoint(entry)
        if (point.size, point.root) != (self.state.tree.size, self.state.tree.root()):
            raise VerificationError("its root is not the root of what stands before it")
        if self._signer is not None:
            signed = point.signed_bytes(self.state.last_hash)
            verify_hybrid(self._signer, AUDIT_SIGNATURE_USE, signed, signature)
        self.checkpoints += 1


def _chained(before: bytes, body: bytes) -> bytes:
    return sha256(_DOMAIN + before + body).digest()


def _parse(line: bytes) -> AuditEntry:
    if len(line) > _MAX_LINE or not line.endswith(b"\n"):
        raise VerificationError("it is no whole line")
    digest, _, body = line[:-1].partition(b" ")
    try:
        found = bytes.fromhex(digest.decode("ascii"))
        content = json.loads(body)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise VerificationError("it is no entry") from error
    if len(digest) != _HASH_DIGITS or found.hex().encode() != digest:
        raise VerificationError("its hash is not 64 lower-case digits")
    match content:
        case {"sequence": int(number), "at": str(at), "event": str(event), "fields": dict(fields)}:
            return AuditEntry(number, at, event, fields, found, body)
        case _:
            raise VerificationError("it is no entry")


def _parse_checkpoint(entry: AuditEntry) -> tuple[Checkpoint, bytes]:
    try:
        match entry.fields:
            case {"size": int(size), "root": str(root), "signature": str(signature)}:
                raw = base64.b64decode(signature, validate=True)
                point = Checkpoint(size, bytes.fromhex(root))
            case _:
                raise VerificationError("it is no checkpoint")
    except (binascii.Error, ValueError) as error:
        raise VerificationError("it is no checkpoint") from error
    if len(raw) != HYBRID_SIGNATURE_BYTES:
        raise VerificationError("its signature has the wrong length")
    return point, raw
