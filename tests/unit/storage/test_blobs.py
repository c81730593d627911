"""The blob store: a blob is what its digest says, in memory, on disk and after a crash."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from zipnet.errors import RemoteProtocolError, SafeMode, StorageError
from zipnet.protocol.ids import Digest, content_digest
from zipnet.storage import blobs as blobs_module
from zipnet.storage.blobs import BlobStore
from zipnet.storage.memory import MemoryBlobs


def kept_path(folder: Path, digest: Digest) -> Path:
    return folder / f"{digest.hex()}.blob"


def test_a_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"blob")
    assert digest == content_digest(b"blob")
    assert store.get(digest) == b"blob"
    assert store.get(Digest(bytes(32))) is None
    assert list(tmp_path.iterdir()) == [], "memory only until it is kept"


def test_a_blob_that_is_not_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(RemoteProtocolError):
        store.put(b"another", expected=content_digest(b"asked for"))
    assert store.get(content_digest(b"another")) is None
    assert store.put(b"asked for", expected=content_digest(b"asked for"))


def test_a_kept_blob_survives_the_process(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest, other = store.put(b"kept"), store.put(b"not kept")
    store.keep(digest)
    store.keep(digest)
    again = BlobStore(tmp_path)
    assert again.kept() == [digest]
    assert again.get(digest) == b"kept"
    assert again.get(other) is None
    assert kept_path(tmp_path, digest).stat().st_mode & 0o777 == 0o600


def test_what_is_not_here_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        BlobStore(tmp_path).keep(content_digest(b"never seen"))


@pytest.mark.requirement("M8")
@pytest.mark.requirement("A6")
def test_a_kept_blob_that_changed_on_disk_is_not_served(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"kept blob")
    store.keep(digest)
    for content in (b"kept blab", b"kept blo", b"kept blob\0", b""):
        kept_path(tmp_path, digest).write_bytes(content)
        with pytest.raises(StorageError, match="digest"):
            BlobStore(tmp_path).get(digest)


def test_the_check_on_reading_is_what_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: a store that believes the file name serves the damage."""
    store = BlobStore(tmp_path)
    digest = store.put(b"kept blob")
    store.keep(digest)
    kept_path(tmp_path, digest).write_bytes(b"damage")
    monkeypatch.setattr(blobs_module, "content_digest", lambda _: digest)
    assert BlobStore(tmp_path).get(digest) == b"damage"


def test_memory_is_bounded_and_the_least_used_goes_first(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=300)
    blobs = [bytes([i]) * 100 for i in range(4)]
    first, second, third = (store.put(blob) for blob in blobs[:3])
    assert store.get(first) == blobs[0]  # used again: now the second is the oldest
    store.put(blobs[2])  # put again: nothing new is held
    fourth = store.put(blobs[3])
    assert store.get(second) is None
    assert [store.get(d) for d in (first, third, fourth)] == [blobs[0], blobs[2], blobs[3]]
    assert store._size == 300


def test_a_blob_larger_than_the_bound_is_held_alone(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=10)
    small, large = store.put(b"small"), store.put(bytes(100))
    assert store.get(small) is None
    assert store.get(large) == bytes(100)


def test_a_kept_blob_pushed_out_of_memory_is_read_back(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=10)
    digest = store.put(b"0123456789")
    store.keep(digest)
    store.put(b"another")
    assert digest not in store._memory
    assert store.get(digest) == b"0123456789"


def test_dropped_blobs_are_gone_everywhere_and_the_size_is_given_back(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    kept, held = store.put(b"kept"), store.put(b"held")
    store.keep(kept)
    store.drop([kept, held, Digest(bytes(32))])
    assert (store.get(kept), store.get(held), store.kept(), store._size) == (None, None, [], 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_crash_while_keeping_leaves_no_half_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def no_rename(_self: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    def half_write(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise KeyboardInterrupt

    store = BlobStore(tmp_path)
    digest = store.put(b"a blob in the making")
    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Path, "replace", no_rename)
        else:
            patch.setattr(blobs_module, "_write_durably", half_write)
        with pytest.raises(KeyboardInterrupt):
            store.keep(digest)
    again = BlobStore(tmp_path)
    assert again.kept() == []
    assert again.get(digest) is None
    again.put(b"a blob in the making")
    again.keep(digest)
    assert BlobStore(tmp_path).get(digest) == b"a blob in the making"
    assert [path.suffix for path in tmp_path.iterdir()] == [".blob"]


def test_content_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(fd: int) -> None:
        steps.append("fsync")
        fsync(fd)

    def noted_replace(path: Path, to: Path) -> Path:
        steps.append("rename")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    store = BlobStore(tmp_path)
    store.keep(store.put(b"blob"))
    assert steps == ["fsync", "rename", "fsync"]


def test_a_disk_that_fails_while_keeping_is_safe_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    store = BlobStore(tmp_path)
    digest = store.put(b"blob")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SafeMode):
            store.keep(digest)
    assert store.kept() == []


def test_after_a_failed_sync_nothing_is_kept_until_a_new_start_makes_it_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    store = BlobStore(tmp_path)
    digest = store.put(b"blob")
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module, "_sync_folder", failing)
        for _ in range(2):
            with pytest.raises(SafeMode):
                store.keep(digest)
    with pytest.raises(SafeMode, match="no more writes"):
        store.keep(digest)
    after = BlobStore(tmp_path)
    after.keep(digest)
    assert after.get(digest) == b"blob"


def test_threads_may_put_get_and_drop_at_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=2_000)
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(200):
                blob = f"{number}-{i}".encode() * 20
                digest = store.put(blob)
                assert store.get(digest) in (blob, None)
                store.drop([digest])
        except BaseException as error:  # noqa: BLE001 - reported below, in the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert problems == []
    assert store._size == 0


@pytest.mark.parametrize("durable", [True, False], ids=["disk", "memory"])
def test_a_flood_of_blobs_does_not_push_out_what_is_in_use(tmp_path: Path, durable: bool) -> None:
    """Whoever may send blobs must not be able to take away the aggregate a round hangs on."""
    store = BlobStore(tmp_path, max_bytes=1000) if durable else MemoryBlobs(max_bytes=1000)
    wanted = store.put(b"the aggregate that was chosen")
    store.pin(frozenset({wanted}))
    flood = [store.put(bytes([number]) * 400) for number in range(20)]
    assert store.get(wanted) is not None
    assert sum(store.get(digest) is not None for digest in flood) <= 2
    store.keep(wanted)
    store.pin(frozenset())
    unpinned = store.put(b"held for a while")
    for number in range(20):
        store.put(bytes([number]) * 400)
    assert store.get(unpinned) is None


def test_a_blob_pushed_out_before_it_is_kept_is_kept_all_the_same(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=1000)
    digest = store.put(b"a registration")
    for number in range(20):
        store.put(bytes([number]) * 400)
    store.keep(digest, b"a registration")
    assert BlobStore(tmp_path).get(digest) == b"a registration"
