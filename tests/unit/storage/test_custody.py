"""Key custody: what could unblind a past round is nowhere once the round is closed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.committee import make_draw, pad_engine
from zipnet.errors import ConfigError, GuardError, LocalProtocolError, SafeMode, StorageError
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.params import RoundParams
from zipnet.protocol.participants import Participants
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip
from zipnet.protocol.secret import Secret
from zipnet.storage import custody as custody_module
from zipnet.storage.custody import CustodyFiles, KeyCustody

GROUP = GroupId(b"g" * 32)
NAMES = ("custody-a.keys", "custody-b.keys")
SMALL = RoundParams(num_slots=2, slot_bytes=64)
ANNA, BERT = RegistryIndex(0), RegistryIndex(7)


@dataclass
class Client:
    """The client's side of one chain."""

    ciphertext: bytes
    first_key: bytes
    first_round: int

    def key_at(self, number: int) -> bytes:
        key = bytearray(self.first_key)
        skip(key, number - self.first_round, limit=100_000)
        return bytes(key)


def seed(epoch: int) -> Secret:
    return Secret(bytes([epoch, 255 - epoch]) * 16)


def join(epoch: int, first_round: int = 1, label: str = "anna") -> Client:
    public = KemKeyPair.from_seed(seed(epoch)).public
    ciphertext, shared = encapsulate(public, make_draw(f"{label}-{epoch}-{first_round}"))
    return Client(ciphertext, bytes(initial_chain_key(GROUP, epoch, shared)), first_round)


def opened(folder: Path, group: GroupId = GROUP) -> KeyCustody:
    return KeyCustody(CustodyFiles(folder), group=group, max_skip_rounds=1000)


def header(number: int) -> RoundHeader:
    zero = Digest(bytes(32))
    return RoundHeader(
        group=GROUP,
        round=RoundNumber(number),
        descriptor_version=1,
        previous_final=RoundNumber(0),
        previous_record=zero,
        schedule=zero,
        registry_version=1,
        registry_digest=zero,
        roster=(ServerIndex(0),),
        opener=ServerIndex(0),
        opened_at_ms=0,
    )


def admitted(custody: KeyCustody, client: Client, index: RegistryIndex = ANNA) -> bool:
    return custody.admit(index, RoundNumber(client.first_round), 1, client.ciphertext)


def unblind(custody: KeyCustody, number: int, *members: RegistryIndex) -> bytes:
    return bytes(custody.unblind(header(number), Participants(members), SMALL, pad_engine()))


def expected(number: int, *clients: Client) -> bytes:
    body, engine = bytearray(SMALL.body_bytes), pad_engine()
    for client in clients:
        engine.apply(body, pad_key(client.key_at(number), header(number).hash))
    return bytes(body)


def on_disk(folder: Path) -> bytes:
    return b"".join((folder / name).read_bytes() for name in NAMES)


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[KeyCustody]:
    made = opened(tmp_path)
    made.add_kem(1, seed(1), Digest(b"a" * 32))
    yield made
    made.close()


def test_the_servers_pads_are_the_clients(custody: KeyCustody) -> None:
    anna, bert = join(1), join(1, label="bert")
    assert admitted(custody, anna)
    assert admitted(custody, bert, BERT)
    assert unblind(custody, 1, ANNA, BERT) == expected(1, anna, bert)
    assert unblind(custody, 1, BERT) == expected(1, bert)
    custody.step_past(RoundNumber(1))
    assert unblind(custody, 2, ANNA, BERT) == expected(2, anna, bert)


@pytest.mark.spec("4.2")
def test_a_step_leaves_the_old_key_in_neither_file_nor_in_memory(
    tmp_path: Path, custody: KeyCustody
) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    buffer = custody._chains[ANNA].key
    assert anna.key_at(2) in on_disk(tmp_path)
    for closed in range(2, 6):
        old = anna.key_at(closed)
        assert old in on_disk(tmp_path)
        custody.step_past(RoundNumber(closed))
        assert old not in on_disk(tmp_path), "the scrubbed file or the new one still has it"
        assert anna.key_at(closed + 1) in on_disk(tmp_path)
        assert custody._chains[ANNA].key is buffer, "stepped in place"
        assert bytes(buffer) == anna.key_at(closed + 1)


def test_a_custody_that_does_not_scrub_is_noticed(
    tmp_path: Path, custody: KeyCustody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: without the scrub of the older file the old key stays readable."""
    monkeypatch.setattr(CustodyFiles, "_scrub", lambda _self, _position: None)
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    custody.step_past(RoundNumber(2))
    assert anna.key_at(2) in on_disk(tmp_path)


@pytest.mark.spec("4.2")
def test_a_closed_round_cannot_be_unblinded_and_a_step_is_taken_once(custody: KeyCustody) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    custody.step_past(RoundNumber(1))
    with pytest.raises(GuardError):
        unblind(custody, 1, ANNA)
    with pytest.raises(GuardError):
        unblind(custody, 3, ANNA)
    assert unblind(custody, 2, ANNA) == expected(2, anna)


def test_a_missing_chain_ends_in_a_guard_error_without_its_index(custody: KeyCustody) -> None:
    admitted(custody, join(1))
    with pytest.raises(GuardError) as refused:
        unblind(custody, 1, ANNA, RegistryIndex(4711))
    assert "4711" not in str(refused.value)


def test_the_newest_state_comes_back(tmp_path: Path, custody: KeyCustody) -> None:
    anna = join(1)
    admitted(custody, anna)
    for closed in range(1, 4):
        custody.step_past(RoundNumber(closed))
        custody.close()
        again = opened(tmp_path)
        assert again.chain_count == 1
        assert unblind(again, closed + 1, ANNA) == expected(closed + 1, anna)
        again.close()
        custody = opened(tmp_path)
    custody.close()


def _states(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_a_write_torn_at_any_byte_falls_back_to_the_state_before(
    tmp_path: Path, custody: KeyCustody
) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    before = _states(tmp_path)
    custody.step_past(RoundNumber(2))
    after = _states(tmp_path)
    custody.close()
    (target,) = (name for name in NAMES if any(after[name]))
    (older,) = (name for name in NAMES if name != target)
    whole = after[target]
    for size in range(0, len(whole), 7):
        torn = whole[:size] + before[target][size:]
        (tmp_path / target).write_bytes(torn)
        (tmp_path / older).write_bytes(before[older])
        again = opened(tmp_path)
        assert unblind(again, 2, ANNA) == expected(2, anna), size
        again.close()
        assert not any((tmp_path / target).read_bytes()), "what was torn is scrubbed"


@pytest.mark.spec("4.2")
def test_a_crash_before_the_scrub_takes_the_newer_and_scrubs_the_older(
    tmp_path: Path, custody: KeyCustody
) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    before = _states(tmp_path)
    custody.step_past(RoundNumber(2))
    custody.close()
    (older,) = (name for name in NAMES if any(before[name]))
    (tmp_path / older).write_bytes(before[older])
    again = opened(tmp_path)
    assert anna.key_at(2) not in on_disk(tmp_path)
    assert unblind(again, 3, ANNA) == expected(3, anna)
    again.close()


def test_damage_to_both_files_is_refused_and_never_taken_for_an_empty_start(
    tmp_path: Path, custody: KeyCustody
) -> None:
    custody.close()
    for name in NAMES:
        data = bytearray((tmp_path / name).read_bytes())
        if data:
            data[len(data) // 2] ^= 1
            (tmp_path / name).write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        opened(tmp_path)


def test_another_instance_is_refused(tmp_path: Path, custody: KeyCustody) -> None:
    custody.close()
    with pytest.raises(ConfigError, match="another instance"):
        opened(tmp_path, GroupId(bytes(32)))


@pytest.mark.spec("4.1")
def test_a_kem_seed_is_erased_one_epoch_after_its_own(tmp_path: Path, custody: KeyCustody) -> None:
    held = custody._kem[1][0]
    with seed(1).reveal() as view:
        raw = bytes(view)
    custody.add_kem(2, seed(2), Digest(b"b" * 32))
    assert raw in on_disk(tmp_path), "the grace period: one more epoch"
    assert admitted(custody, join(1))
    custody.add_kem(3, seed(3), Digest(b"c" * 32))
    assert raw not in on_disk(tmp_path)
    assert custody.kem_entry(1) is None
    with pytest.raises(LocalProtocolError), held.reveal():
        pass
    assert not admitted(custody, join(1, label="late"), BERT)
    assert not custody.holds(BERT)
    entry = custody.kem_entry(3)
    assert entry is not None
    assert entry.announcement == b"c" * 32
    custody.close()
    again = opened(tmp_path)
    assert [again.kem_entry(epoch) is not None for epoch in (1, 2, 3)] == [False, True, True]
    again.close()


def test_a_client_admitted_late_is_stepped_to_the_round_at_hand(custody: KeyCustody) -> None:
    for closed in range(1, 5):
        custody.step_past(RoundNumber(closed))
    anna = join(1, first_round=2)
    assert admitted(custody, anna)
    assert unblind(custody, 5, ANNA) == expected(5, anna)


@pytest.mark.spec("4.2")
def test_a_round_closed_again_does_not_turn_time_back(custody: KeyCustody) -> None:
    custody.step_past(RoundNumber(4))
    custody.step_past(RoundNumber(1))
    anna = join(1, first_round=2)
    admitted(custody, anna)
    with pytest.raises(GuardError):
        unblind(custody, 2, ANNA)
    assert unblind(custody, 5, ANNA) == expected(5, anna)


def test_a_chain_that_begins_later_waits_for_its_round(custody: KeyCustody) -> None:
    anna = join(1, first_round=3)
    admitted(custody, anna)
    for number in (1, 2):
        with pytest.raises(GuardError):
            unblind(custody, number, ANNA)
        custody.step_past(RoundNumber(number))
    assert unblind(custody, 3, ANNA) == expected(3, anna)


def test_admitting_twice_changes_nothing(custody: KeyCustody) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    assert admitted(custody, join(1, label="another ciphertext"))
    assert unblind(custody, 2, ANNA) == expected(2, anna)


def test_a_chain_not_yet_durable_begins_again_at_the_same_key(
    tmp_path: Path, custody: KeyCustody
) -> None:
    custody.step_past(RoundNumber(1))
    anna = join(1)
    admitted(custody, anna)
    custody.close()
    again = opened(tmp_path)
    assert not again.holds(ANNA)
    assert admitted(again, anna)
    assert unblind(again, 2, ANNA) == expected(2, anna)
    again.close()


def test_a_retired_chain_serves_the_round_under_way_and_is_erased_with_it(
    tmp_path: Path, custody: KeyCustody
) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    buffer = custody._chains[ANNA].key
    custody.retire(ANNA)
    custody.retire(BERT)
    assert unblind(custody, 2, ANNA) == expected(2, anna)
    custody.step_past(RoundNumber(2))
    assert not custody.holds(ANNA)
    assert not any(buffer)
    for number in (2, 3):
        assert anna.key_at(number) not in on_disk(tmp_path)


def test_closing_wipes_what_memory_held(custody: KeyCustody) -> None:
    admitted(custody, join(1))
    buffer, held = custody._chains[ANNA].key, custody._kem[1][0]
    custody.close()
    custody.close()
    assert not any(buffer)
    assert custody.chain_count == 0
    with pytest.raises(LocalProtocolError), held.reveal():
        pass


@pytest.mark.parametrize("operation", ["pwrite", "fsync", "ftruncate"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_is_not_durable_is_safe_mode_for_good(
    custody: KeyCustody, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, errno.errorcode[number])

    admitted(custody, join(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, failing)
        with pytest.raises(SafeMode):
            custody.step_past(RoundNumber(1))
    with pytest.raises(SafeMode):
        custody.step_past(RoundNumber(2))
    with pytest.raises(SafeMode):
        custody.add_kem(2, seed(2), Digest(bytes(32)))


@pytest.mark.spec("4.2")
def test_the_new_state_is_durable_before_the_old_one_is_touched(
    custody: KeyCustody, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noted_pwrite(fd: int, data: bytes, offset: int) -> int:
        steps.append(("write", fd))
        return pwrite(fd, data, offset)

    def noted_fsync(fd: int) -> None:
        steps.append(("sync", fd))
        fsync(fd)

    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    custody.step_past(RoundNumber(1))
    target, older = steps[0][1], steps[-1][1]
    assert target != older
    assert steps == [("write", target), ("sync", target), ("write", older), ("sync", older)]


@pytest.mark.spec("8.5")
def test_nothing_secret_shows_and_the_files_are_the_owners_alone(
    tmp_path: Path, custody: KeyCustody
) -> None:
    anna = join(1)
    admitted(custody, anna)
    custody.step_past(RoundNumber(1))
    shown = repr(custody) + repr(custody._chains) + repr(custody._kem) + repr(vars(custody))
    assert anna.key_at(2).hex() not in shown
    assert repr(anna.key_at(2))[2:-1] not in shown
    with seed(1).reveal() as view:
        assert bytes(view).hex() not in shown
    for name in NAMES:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / NAMES[0]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        CustodyFiles(tmp_path)


def test_a_version_it_does_not_know_is_refused(
    tmp_path: Path, custody: KeyCustody, monkeypatch: pytest.MonkeyPatch
) -> None:
    custody.close()
    monkeypatch.setattr(custody_module, "_VERSION", 2)
    with pytest.raises(StorageError, match="version"):
        opened(tmp_path)


def test_a_ciphertext_that_cannot_be_opened_admits_nobody_and_raises_nothing(
    custody: KeyCustody,
) -> None:
    """Its X25519 half is the client's choice; a point of small order must not end the server."""
    anna = join(1)
    forged = anna.ciphertext[:-32] + bytes(32)
    assert not custody.admit(ANNA, RoundNumber(1), 1, forged)
    assert not custody.holds(ANNA)


def test_a_client_that_began_too_long_ago_is_not_admitted(custody: KeyCustody) -> None:
    """Its server was away longer than a chain is stepped at once: the client registers anew."""
    for closed in (1000, 1001):
        custody.step_past(RoundNumber(closed))
    assert not admitted(custody, join(1))
    assert not custody.holds(ANNA)
    bert = join(1, first_round=2)
    assert admitted(custody, bert, BERT)
    assert unblind(custody, 1002, BERT) == expected(1002, bert)
