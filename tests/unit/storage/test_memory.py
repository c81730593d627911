"""Adapters that keep nothing: the ports' duties as far as they reach without a disk."""

from __future__ import annotations

import pytest

from zipnet.errors import LocalProtocolError, RemoteProtocolError, StorageError
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, content_digest
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.secret import Secret
from zipnet.storage.custody import KeyCustody
from zipnet.storage.memory import MemoryBlobs, MemoryCustody, MemoryJournal, MemoryRecords


def test_a_journal_without_memory_has_no_entries_whatever_was_appended() -> None:
    journal = MemoryJournal()
    journal.append(b"released")
    journal.append_group([b"a", b"b"])
    assert (journal.entries(), journal.snapshot()) == ((), None)
    journal.truncate(0)
    with pytest.raises(LocalProtocolError):
        journal.truncate(1)


def test_blobs_that_are_kept_stay_while_others_make_room() -> None:
    store = MemoryBlobs(max_bytes=100)
    kept = store.put(b"k" * 60)
    store.keep(kept)
    recent = [store.put(bytes([i]) * 60) for i in range(3)]
    assert store.get(kept) == b"k" * 60
    assert [store.get(digest) is not None for digest in recent] == [False, False, True]
    assert store.kept() == [kept]
    store.drop([kept, recent[2]])
    assert (store.get(kept), store.get(recent[2]), store.kept()) == (None, None, [])


def test_a_blob_is_what_its_digest_says() -> None:
    store = MemoryBlobs()
    with pytest.raises(RemoteProtocolError):
        store.put(b"blob", expected=content_digest(b"another"))
    with pytest.raises(StorageError, match="not here"):
        store.keep(content_digest(b"blob"))


def test_records_are_bounded_and_never_have_gaps() -> None:
    store = MemoryRecords(max_bytes=100)
    for sequence in range(5):
        store.append(sequence, bytes([sequence]) * 40)
    assert (store.first_sequence, store.next_sequence) == (3, 5)
    assert [data[0] for data in store.read(0, 10)] == [3, 4], "from the oldest one on"
    assert [data[0] for data in store.read(4, 10)] == [4]
    assert [data[0] for data in store.read(3, 1)] == [3]
    assert len(store.read(3, 10, max_bytes=50)) == 1
    assert store.read(5, 10) == []
    with pytest.raises(LocalProtocolError, match="not next"):
        store.append(6, b"gap")


def test_a_newcomers_first_record_may_have_any_sequence_and_only_the_first() -> None:
    store = MemoryRecords()
    store.append(700, b"first")
    store.append(701, b"second")
    assert (store.first_sequence, store.next_sequence) == (700, 702)
    with pytest.raises(LocalProtocolError):
        store.append(900, b"a jump")


@pytest.mark.requirement("M1")
def test_chains_in_memory_step_and_are_gone_with_the_process() -> None:
    def custody() -> KeyCustody:
        return KeyCustody(MemoryCustody(), group=GroupId(bytes(32)), max_skip_rounds=10)

    seed = Secret(bytes(range(32)))
    ciphertext, _ = encapsulate(KemKeyPair.from_seed(seed).public, bytes)
    first = custody()
    first.add_kem(4, seed, Digest(bytes(32)))
    assert first.admit(RegistryIndex(0), RoundNumber(1), 4, ciphertext)
    before = bytes(first._chains[RegistryIndex(0)].key)
    first.step_past(RoundNumber(1))
    held = first._chains[RegistryIndex(0)].key
    assert bytes(held) != before
    first.close()
    assert bytes(held) == bytes(32), "wiped, not only let go"
    second = custody()
    assert (second.chain_count, second.kem_entry(4)) == (0, None)
    assert not second.admit(RegistryIndex(0), RoundNumber(1), 4, ciphertext)
