"""What tells a client that its aggregator drops what it sends, and what must not."""

from __future__ import annotations

from tests.harness.committee import HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.machines.publisher import PublisherPolicy


def crowd(
    *, min_registered: int
) -> tuple[HarnessCommittee, HarnessPublisher, list[HarnessPublisher]]:
    """A committee, one client to look at, and its company, all registered."""
    committee = HarnessCommittee()
    policy = PublisherPolicy(settle_rounds=0, min_registered=min_registered)
    watched = HarnessPublisher(committee, "watched", policy=policy)
    company = [HarnessPublisher(committee, f"company-{index}") for index in range(2)]
    for one in (watched, *company):
        one.register()
    return committee, watched, company


def drop_round(
    committee: HarnessCommittee, watched: HarnessPublisher, company: list[HarnessPublisher]
) -> None:
    """A round in which what the watched client sends is lost on the way."""
    committee.open_round()
    watched.show_header()
    for one in company:
        for envelope in one.show_header():
            committee.submit(envelope)
    committee.seal()
    for one in (watched, *company):
        one.show_record()


def test_records_that_lack_what_was_sent_are_counted_until_one_has_it() -> None:
    committee, watched, company = crowd(min_registered=0)
    watched.queue(b"hello")
    for lost in range(1, 4):
        drop_round(committee, watched, company)
        assert watched.machine.fruitless_records == lost
    watched.machine.forget_fruitless()
    assert watched.machine.fruitless_records == 0
    drop_round(committee, watched, company)
    for _ in range(3):
        play_round(committee, (watched, *company))
    assert watched.delivered
    assert watched.machine.fruitless_records == 0


def test_cover_and_words_that_are_withheld_count_for_nothing() -> None:
    """Whoever watches the links would else see who has something to say."""
    committee, watched, company = crowd(min_registered=50)
    for _ in range(3):
        drop_round(committee, watched, company)
    watched.queue(b"not before there is a crowd")
    for _ in range(10):
        play_round(committee, (watched, *company))
        drop_round(committee, watched, company)
    assert not watched.delivered
    assert watched.machine.fruitless_records == 0
