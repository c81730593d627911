"""Signed notes, the format transparency logs share (c2sp.org/signed-note).

A note is text that ends in a line feed, an empty line, and signature lines
``— <key name> <base64(key id 4 ‖ signature)>``. The key id is the beginning of
``SHA-256(name ‖ LF ‖ type ‖ public key)``. Two types are known here:

* ``0x01`` Ed25519 over the text itself: what every tool of that world verifies.
* ``0xff`` with the name ``zipnet/v1/hybrid``: Ed25519 and ML-DSA-65 under a use of this protocol
  (protocol.md §2), over the same text.

Text of a note begins with a printable character; what identities sign otherwise begins with the
length of a short label, whose first byte is zero, so neither can be taken for the other.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol.identity import (
    HYBRID_SIGNATURE_BYTES,
    verify_ed25519_note,
    verify_hybrid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.protocol.identity import Identity, PublicIdentity

__all__ = ["Note", "NoteKey", "NoteSignature", "note_key", "parse_note", "sign_note"]

MAX_NOTE_BYTES: Final = 256 * 1024
_MAX_SIGNATURES: Final = 64
_USE: Final = "log-checkpoint"
_ED25519: Final = b"\x01"
_HYBRID: Final = b"\xff" + b"zipnet/v1/hybrid"
_ID_BYTES: Final = 4
_DASH: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that signs notes under a name.

    Attributes:
        name: Without spaces and plus signs.
        identity: Both public keys.
    """

    name: str
    identity: PublicIdentity

    @property
    def ed25519_id(self) -> bytes:
        """Key id of the Ed25519 half alone, 4 bytes."""
        return _key_id(self.name, _ED25519, self.identity.ed25519)

    @property
    def hybrid_id(self) -> bytes:
        """Key id of both halves, 4 bytes."""
        return _key_id(self.name, _HYBRID, self.identity.encode())

    @property
    def verifier_key(self) -> str:
        """The Ed25519 half as other tools take it: ``name+id+base64``."""
        public = base64.b64encode(_ED25519 + self.identity.ed25519).decode()
        return f"{self.name}+{self.ed25519_id.hex()}+{public}"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Return the line, with its line feed."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note as it was received.

    Attributes:
        text: What is signed, with its last line feed.
        signatures: In the order of their lines.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Return the whole note."""
        return f"{self.text}\n{''.join(s.line() for s in self.signatures)}".encode()

    def signed_by(self, key: NoteKey) -> bool:
        """Whether a key signed it with both of its halves.

        Raises:
            VerificationError: When a line that names the key does not verify.
        """
        found = set()
        data = self.text.encode()
        for signature in self.signatures:
            if signature.name != key.name:
                continue
            if signature.key_id == key.ed25519_id:
                verify_ed25519_note(key.identity.ed25519, data, signature.signature)
            elif signature.key_id == key.hybrid_id:
                verify_hybrid(key.identity, _USE, data, signature.signature)
            else:
                continue  # an unknown key of that name
            found.add(signature.key_id)
        return found == {key.ed25519_id, key.hybrid_id}

    def only(self, keys: Iterable[NoteKey]) -> Note:
        """Return this note with the lines of these keys alone, the first of each.

        Whoever sends a note may have put any number of lines into it; and a key that hedges makes
        another signature of one text each time.
        """
        wanted = {(key.name, own) for key in keys for own in (key.ed25519_id, key.hybrid_id)}
        first: dict[tuple[str, bytes], NoteSignature] = {}
        for signature in self.signatures:
            line = (signature.name, signature.key_id)
            if line in wanted:
                first.setdefault(line, signature)
        return Note(self.text, tuple(first.values()))

    def merged(self, others: Iterable[NoteSignature]) -> Note:
        """Return this note with further signatures of the same text, each line once."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *others))))


def note_key(name: str, identity: PublicIdentity) -> NoteKey:
    """Return a key under a name.

    Raises:
        VerificationError: When the name is none that a note can hold.
    """
    if not _is_name(name):
        raise VerificationError("a key name of a note has neither spaces nor plus signs")
    return NoteKey(name, identity)


def sign_note(text: str, name: str, identity: Identity) -> Note:
    """Sign a text with both halves of an identity.

    Args:
        text: Ends in a line feed; no control characters otherwise.
        name: Key name.
        identity: Whose keys.

    Raises:
        VerificationError: When text or name is none that a note can hold.
        LocalProtocolError: When the identity has been closed.
    """
    key, data = note_key(name, identity.public), text.encode()
    if not _is_text(text):
        raise VerificationError("this text is none that a note can hold")
    return Note(
        text,
        (
            NoteSignature(name, key.ed25519_id, identity.sign_text(data)),
            NoteSignature(name, key.hybrid_id, identity.sign(_USE, data)),
        ),
    )


def parse_note(data: bytes) -> Note:
    """Parse a note strictly; nothing is verified.

    Raises:
        RemoteProtocolError: When it is none.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise RemoteProtocolError(f"a note of {len(data)} bytes is too large")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("a note is UTF-8") from error
    text, gap, lines = whole.rpartition("\n\n")
    text += "\n"
    signatures = tuple(map(_signature, lines.splitlines()))
    if not gap or not lines.endswith("\n") or not _is_text(text):
        raise RemoteProtocolError("a note is text, an empty line and signatures")
    if not 0 < len(signatures) <= _MAX_SIGNATURES:
        raise RemoteProtocolError(f"a note has 1 to {_MAX_SIGNATURES} signatures")
    note = Note(text, signatures)
    if note.encode() != data:
        raise RemoteProtocolError("a line of the note is written in another way than it should be")
    return note


def _signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    sound = _ID_BYTES < len(raw) <= _ID_BYTES + 2 * HYBRID_SIGNATURE_BYTES
    if not line.startswith(_DASH) or not _is_name(name) or not sound:
        raise RemoteProtocolError("a signature line of a note is malformed")
    return NoteSignature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def _key_id(name: str, kind: bytes, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + kind + public).digest()[:_ID_BYTES]


def _is_name(name: str) -> bool:
    spaces = any(unicodedata.category(c)[0] in "ZC" for c in name)
    return bool(name) and "+" not in name and not spaces


def _is_text(text: str) -> bool:
    plain = all(c >= " " or c == "\n" for c in text)
    return plain and text.endswith("\n") and text[0] > " "
