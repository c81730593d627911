"""Merkle trees agree with RFC 6962's definition, and no wrong proof passes."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.errors import VerificationError
from zipnet.ledger.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    consistency_proof,
    inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def naive(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, as it is written there."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return sha256(b"\1" + naive(entries[:split]) + naive(entries[split:])).digest()


def test_roots_are_those_of_certificate_transparency() -> None:
    """The test vectors of the Certificate Transparency reference implementation."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    entries = [bytes.fromhex(text) for text in leaves] + [bytes(range(0x60, 0x70))]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert {size: root_of(entries[:size]).hex() for size in roots} == roots


@given(ENTRIES)
def test_a_growing_tree_has_the_root_of_the_definition(entries: list[bytes]) -> None:
    tree = MerkleTree()
    for count, entry in enumerate(entries, 1):
        tree.append(entry)
        assert tree.root() == naive(entries[:count])
        assert tree.size == count


@given(ENTRIES, st.data())
def test_what_is_in_the_tree_can_be_proved_and_nothing_else(
    entries: list[bytes], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    proof, root = inclusion_proof(entries, index), naive(entries)
    verify_inclusion(entries[index], index, len(entries), proof, root)
    wrong = [
        (entries[index] + b"!", index, len(entries), proof, root),
        (entries[index], index + 1, len(entries), proof, root),
        (entries[index], index, len(entries), [*proof, bytes(32)], root),
        (entries[index], index, len(entries), proof, bytes(32)),
    ]
    if proof:
        wrong.append((entries[index], index, len(entries), proof[:-1], root))
        wrong.append((entries[index], index, len(entries), [bytes(32), *proof[1:]], root))
    for entry, at, size, path, head in wrong:
        if entries[min(at, size - 1)] == entry and at != index and path == proof:
            continue  # a neighbour that says the same
        with pytest.raises(VerificationError):
            verify_inclusion(entry, at, size, path, head)


@given(ENTRIES, st.data())
def test_a_tree_that_grew_can_be_told_from_one_that_was_rewritten(
    entries: list[bytes], data: st.DataObject
) -> None:
    older = data.draw(st.integers(1, len(entries)))
    proof = consistency_proof(entries, older)
    before, after = naive(entries[:older]), naive(entries)
    verify_consistency(older, before, len(entries), after, proof)
    rewritten = [entries[0] + b"!", *entries[1:]]
    with pytest.raises(VerificationError):
        verify_consistency(older, naive(rewritten[:older]), len(entries), after, proof)
    with pytest.raises(VerificationError):
        verify_consistency(older, before, len(entries), naive(rewritten), proof)
    with pytest.raises(VerificationError):
        verify_consistency(older, before, len(entries), after, [*proof, bytes(32)])


@pytest.mark.parametrize(("older", "size"), [(0, 3), (4, 3), (-1, 3)])
def test_a_proof_of_consistency_needs_a_smaller_tree(older: int, size: int) -> None:
    with pytest.raises(VerificationError):
        verify_consistency(older, bytes(32), size, bytes(32), [])
    with pytest.raises(VerificationError):
        consistency_proof([b"a"] * size, older)


def test_a_proof_of_inclusion_is_about_an_entry_of_the_tree() -> None:
    with pytest.raises(VerificationError):
        inclusion_proof([b"a"], 1)
