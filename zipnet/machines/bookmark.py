"""Where a reader left off, so that the next process goes on without a gap or a repetition.

A bookmark names the next record, the hash of the one before it, and the record to read again from
so that fragments of messages that were not complete are not lost. What was told before is not told
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from zipnet.errors import ConfigError
from zipnet.protocol.ids import Digest

__all__ = ["Bookmark"]

_PREFIX = "zb1"
_DIGEST_BYTES = 32
_MOST = 1 << 63


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A place in the record log.

    Attributes:
        sequence: The next record that has not been told of.
        record_hash: Hash of the record before it; zeros where ``sequence`` is 0.
        replay_from: Record to read from for the fragments of incomplete messages.
        version: Version of the descriptor the record before it was of; none that follows is of an
            older one. 0 where it is not known.
    """

    sequence: int
    record_hash: Digest
    replay_from: int
    version: int = 0

    def to_text(self) -> str:
        """Return the bookmark as one word that :meth:`from_text` reads."""
        text = f"{_PREFIX}:{self.sequence}:{self.replay_from}:{self.record_hash.hex()}"
        return f"{text}:{self.version}" if self.version else text

    @staticmethod
    def from_text(text: str) -> Bookmark:
        """Read what :meth:`to_text` wrote.

        Raises:
            ConfigError: When it is no bookmark.
        """
        parts = text.strip().split(":")
        try:
            prefix, sequence, replay_from, digest, *more = parts
            version = [int(text) for text in more] or [0]
            record_hash = Digest(bytes.fromhex(digest))
            bookmark = Bookmark(int(sequence), record_hash, int(replay_from), *version)
        except (TypeError, ValueError):
            prefix, bookmark = "", None
        if (
            bookmark is None
            or prefix != _PREFIX
            or len(bookmark.record_hash) != _DIGEST_BYTES
            or not 0 <= bookmark.replay_from <= bookmark.sequence < _MOST
            or not 0 <= bookmark.version < _MOST
        ):
            raise ConfigError("this is no bookmark of a reader", hint="read from the beginning")
        return bookmark
