"""What a server finds again after a crash within a round, and what it drops after the round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.committee import HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.node.drafts import Drafts
from zipnet.protocol.aggregate import Aggregate
from zipnet.protocol.ids import RegistryIndex, RoundNumber
from zipnet.protocol.participants import Participants
from zipnet.storage.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.protocol.record import RecordContent


def _contents(committee: HarnessCommittee, count: int) -> list[RecordContent]:
    crowd = [HarnessPublisher(committee, f"c{i}") for i in range(3)]
    for publisher in crowd:
        publisher.register()
    for _ in range(count):
        play_round(committee, crowd)
    return [record.record.content for record in committee.verified]


async def test_a_content_is_found_by_another_process_until_its_record_is_stored(
    tmp_path: Path,
) -> None:
    committee = HarnessCommittee()
    first, second = _contents(committee, 2)
    store = BlobStore(tmp_path)
    await Drafts(store, committee.params).keep(first, stored=0)
    again = Drafts(BlobStore(tmp_path), committee.params)
    assert await again.find(first.hash) == first
    assert await again.find(second.hash) is None
    await again.keep(second, stored=1)
    later = Drafts(BlobStore(tmp_path), committee.params)
    assert await later.find(first.hash) is None
    assert await later.find(second.hash) == second
    assert len(BlobStore(tmp_path).kept()) == 1


async def test_an_earlier_processes_list_of_participants_goes_with_its_round(
    tmp_path: Path,
) -> None:
    committee = HarnessCommittee()
    header = committee.open_round().header
    members = Participants([RegistryIndex(0), RegistryIndex(1)])
    body = bytes(committee.params.body_bytes)
    aggregate = Aggregate(header.round, header.hash, members, body).encode()
    store = BlobStore(tmp_path)
    store.keep(store.put(aggregate))
    registration = store.put(b"\x01 a registration stays")
    store.keep(registration)
    again = Drafts(BlobStore(tmp_path), committee.params)
    await again.drop_aggregates(RoundNumber(header.round - 1))
    assert len(BlobStore(tmp_path).kept()) == 2
    await again.drop_aggregates(header.round)
    assert BlobStore(tmp_path).kept() == [registration]
