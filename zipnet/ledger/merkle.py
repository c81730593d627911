"""Merkle trees over the entries of a log, with proofs (RFC 6962 §2.1, RFC 9162 §2.1).

SHA-256; a leaf is hashed behind a zero byte, a node behind a one byte. The tree over ``n`` entries
splits at the largest power of two below ``n``, so a growing log keeps every full subtree.

Left to others: what an entry is, who signs a root.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from zipnet.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "MerkleTree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_of",
    "split_of",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from those of its two children."""
    return sha256(b"\1" + left + right).digest()


@dataclass(slots=True)
class MerkleTree:
    """A tree that only grows: it keeps one hash for each full subtree, at most 64 of them.

    Attributes:
        size: Number of entries.
    """

    size: int = 0
    _peaks: list[bytes] = field(default_factory=list, repr=False)

    def append(self, entry: bytes) -> None:
        """Add an entry."""
        node, size = leaf_hash(entry), self.size
        while size & 1:  # a full subtree of this height is there already
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def copy(self) -> MerkleTree:
        """Return a tree that grows by itself."""
        return MerkleTree(self.size, list(self._peaks))

    def root(self) -> bytes:
        """Return the root over all entries so far."""
        if not self._peaks:
            return EMPTY_ROOT
        *lower, node = self._peaks
        for peak in reversed(lower):
            node = node_hash(peak, node)
        return node


def root_of(entries: Iterable[bytes]) -> bytes:
    """Return the root over a list of entries."""
    tree = MerkleTree()
    for entry in entries:
        tree.append(entry)
    return tree.root()


def inclusion_proof(entries: Sequence[bytes], index: int) -> list[bytes]:
    """Return what proves that entry ``index`` is in the tree over ``entries``.

    Raises:
        VerificationError: When there is no such entry.
    """
    if not 0 <= index < len(entries):
        raise VerificationError("no entry of that number is in the tree")
    return _path(list(entries), index)


def _path(entries: list[bytes], index: int) -> list[bytes]:
    if len(entries) == 1:
        return []
    split = split_of(len(entries))
    if index < split:
        return [*_path(entries[:split], index), root_of(entries[split:])]
    return [*_path(entries[split:], index - split), root_of(entries[:split])]


def verify_inclusion(
    entry: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check a proof that an entry is in a tree of ``size`` entries (RFC 9162 §2.1.3.2).

    Raises:
        VerificationError: When it is not, as far as the proof shows.
    """
    if not 0 <= index < size:
        raise VerificationError("the proof is about an entry outside the tree")
    at, last, node = index, size - 1, leaf_hash(entry)
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            raise VerificationError("the proof of inclusion has the wrong shape")
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(node, root):
        raise VerificationError("the proof of inclusion does not lead to the root")


def consistency_proof(entries: Sequence[bytes], older: int) -> list[bytes]:
    """Return what proves that the tree over the first ``older`` entries grew into this one.

    Raises:
        VerificationError: When ``older`` is not between 1 and the number of entries.
    """
    if not 0 < older <= len(entries):
        raise VerificationError("a proof of consistency needs an older tree that is not empty")
    return _subproof(list(entries), older, complete=True)


def _subproof(entries: list[bytes], older: int, *, complete: bool) -> list[bytes]:
    if older == len(entries):
        return [] if complete else [root_of(entries)]
    split = split_of(len(entries))
    if older <= split:
        left = _subproof(entries[:split], older, complete=complete)
        return [*left, root_of(entries[split:])]
    right = _subproof(entries[split:], older - split, complete=False)
    return [*right, root_of(entries[:split])]


def verify_consistency(
    older: int, older_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a tree grew out of an older one (RFC 9162 §2.1.4.2).

    Raises:
        VerificationError: When it did not, as far as the proof shows.
    """
    if not 0 < older <= size:
        raise VerificationError("the older tree is empty or larger than the newer one")
    if older == size:
        if proof or not hmac.compare_digest(older_root, root):
            raise VerificationError("two trees of one size differ")
        return
    path = [older_root, *proof] if older & (older - 1) == 0 else list(proof)
    if not path or any(len(node) != HASH_BYTES for node in path):
        raise VerificationError("the proof of consistency has the wrong shape")
    old_node, new_node = _climb(older - 1, size - 1, path)
    agrees = hmac.compare_digest(old_node, older_root) and hmac.compare_digest(new_node, root)
    if not agrees:
        raise VerificationError("the newer tree did not grow out of the older one")


def _climb(at: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Roots of the older and the newer tree, as a proof of consistency makes them."""
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationError("the proof of consistency has the wrong shape")
        if at & 1 or at == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise VerificationError("the proof of consistency has the wrong shape")
    return older, newer


def split_of(size: int) -> int:
    """Return the largest power of two below ``size``, where a tree splits."""
    return 1 << (size - 1).bit_length() - 1
