"""Promises of the wall's pure parts: who is counted together, buckets, shedding, breakers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.access.breaker import Breaker, BreakerState
from zipnet.access.principal import Principal, PrincipalKind, peer_principal, prefix_of
from zipnet.access.quota import TokenBuckets
from zipnet.access.refusal import REFUSALS, refusal, retry_after_of, status_of
from zipnet.access.shedding import SHED_AT, Load, Rank
from zipnet.errors import ConfigError
from zipnet.protocol.ids import PeerId
from zipnet.wire.handshake import Role

PEER = PeerId(bytes(range(32)))

PREFIXES = {
    "ipv4": ("192.0.2.7:4433", "192.0.2.0/24"),
    "ipv4, bare": ("192.0.2.200", "192.0.2.0/24"),
    "ipv6": ("2001:db8:1:2:3:4:5:6:4433", "2001:db8:1::/48"),
    "ipv6, short": ("2001:db8:1::9:4433", "2001:db8:1::/48"),
    "ipv6, in brackets": ("[2001:db8:1::9]:4433", "2001:db8:1::/48"),
    "ipv6, with a zone": ("fe80::1%eth0", "fe80::/48"),
    "ipv4 in ipv6": ("::ffff:192.0.2.7", "192.0.2.0/24"),
    "nonsense": ("somewhere", "unknown"),
    "nothing": ("", "unknown"),
}


@pytest.mark.parametrize(("address", "prefix"), PREFIXES.values(), ids=PREFIXES)
def test_addresses_of_one_network_are_counted_together(address: str, prefix: str) -> None:
    assert prefix_of(address) == prefix


@given(st.text(max_size=60))
def test_any_address_has_a_prefix(address: str) -> None:
    assert prefix_of(address)


def test_who_proved_an_identity_is_counted_under_it_and_a_reader_under_its_network() -> None:
    here, there = "192.0.2.7:1", "198.51.100.7:1"
    assert (
        peer_principal(Role.CLIENT, PEER, here).key == peer_principal(Role.CLIENT, PEER, there).key
    )
    reader = peer_principal(Role.READER, None, here)
    assert reader.key == peer_principal(Role.READER, None, "192.0.2.99:5").key
    assert reader.key != peer_principal(Role.READER, None, there).key


def test_nodes_of_the_descriptor_are_not_counted_with_their_neighbours() -> None:
    assert peer_principal(Role.SERVER, PEER, "192.0.2.7:1").prefix is None
    assert peer_principal(Role.AGGREGATOR, PEER, "192.0.2.7:1").prefix is None
    assert peer_principal(Role.CLIENT, PEER, "192.0.2.7:1").prefix == "192.0.2.0/24"


def test_a_principal_shows_nobody() -> None:
    shown = repr(Principal(PrincipalKind.CLIENT, "client:canary", "canary", PeerId(b"canary")))
    assert "canary" not in shown


# -- buckets ---------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    buckets = TokenBuckets(rate=10, burst=5, most=8)
    assert [buckets.take("a", 1, 0.0) for _ in range(5)] == [0] * 5
    assert buckets.take("a", 1, 0.0) == pytest.approx(0.1)
    assert buckets.take("b", 1, 0.0) == 0
    assert buckets.take("a", 1, 0.1) == 0
    assert buckets.take("a", 1, 0.1) > 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = TokenBuckets(rate=10, burst=1, most=8)
    assert buckets.take("a", 1, 100.0) == 0
    assert buckets.take("a", 1, 1.0) > 0
    assert buckets.take("a", 1, 100.0) > 0


def test_a_crowd_of_new_names_wins_nobody_a_fresh_bucket_and_shares_one() -> None:
    buckets = TokenBuckets(rate=0.001, burst=10, most=4)
    for name in "abcd":
        assert buckets.take(name, 10, 0.0) == 0
    let_in = sum(buckets.take(f"new {i}", 1, 1.0) == 0 for i in range(1000))
    assert let_in == 10, "the newcomers' one bucket"
    assert len(buckets) == 4
    assert all(buckets.take(name, 10, 1.0) > 0 for name in "abcd"), "still empty"


def test_buckets_that_filled_up_again_make_room() -> None:
    buckets = TokenBuckets(rate=10, burst=10, most=4)
    for name in "abcd":
        buckets.take(name, 10, 0.0)
    assert all(buckets.take(f"new {i}", 10, 2.0) == 0 for i in range(4))
    assert len(buckets) == 4


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 4), st.floats(0, 2)), max_size=200)
)
def test_nobody_gets_more_than_burst_and_rate_and_memory_is_bounded(
    asked: list[tuple[str, int, float]],
) -> None:
    rate, burst, now = 3.0, 6.0, 0.0
    buckets = TokenBuckets(rate=rate, burst=burst, most=3)
    got: dict[str, float] = {}
    for name, cost, pause in asked:
        now += pause
        if buckets.take(name, cost, now) == 0:
            got[name] = got.get(name, 0) + cost
        assert len(buckets) <= 3
    # A forgotten bucket was full: forgetting gives nothing a kept one would not. The shared one
    # may add one burst and its rate.
    for total in got.values():
        assert total <= 2 * (burst + rate * now) + 1e-6


# -- shedding --------------------------------------------------------------------------------


def test_readers_go_first_and_control_never() -> None:
    bounds = [SHED_AT[rank] for rank in sorted(Rank)]
    assert bounds[-1] is None
    assert all(low < high for low, high in pairwise(bounds[:-1]) if low and high)
    load = Load(most=100, most_bytes=1000)
    shed_at: dict[Rank, int] = {}
    for count in range(101):
        for rank in Rank:
            if load.sheds(rank):
                shed_at.setdefault(rank, count)
        load.enter(1)
    assert shed_at == {Rank.READING: 50, Rank.PUBLISHING: 75, Rank.RELAYING: 90}


def test_bytes_are_load_too_and_one_request_alone_is_served() -> None:
    load = Load(most=100, most_bytes=1000)
    assert not load.sheds(Rank.READING)
    load.enter(5000)
    assert load.share == 5
    assert load.sheds(Rank.READING)
    assert load.sheds(Rank.RELAYING)
    assert not load.sheds(Rank.CONTROL)
    load.leave(5000)
    assert load.share == 0


# -- breaker ---------------------------------------------------------------------------------


def test_a_breaker_opens_after_failures_in_a_row_tries_one_and_closes() -> None:
    breaker = Breaker(failures=3, cool_s=1.0, longest_s=4.0)
    assert [breaker.failed(0.0) for _ in range(2)] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    assert breaker.state == "open"
    assert not breaker.allows(0.5)
    assert breaker.retry_after_s(0.5) == pytest.approx(0.5)
    assert breaker.allows(1.0)
    assert breaker.state == "half_open"
    assert not breaker.allows(1.1), "one attempt"
    breaker.succeeded()
    assert breaker.state == BreakerState.CLOSED
    assert breaker.open_for_s(5.0) == 0


def test_a_failed_attempt_doubles_the_wait_up_to_a_bound() -> None:
    breaker = Breaker(failures=1, cool_s=1.0, longest_s=4.0)
    now, waits = 0.0, []
    breaker.failed(now)
    for _ in range(4):
        wait = breaker.retry_after_s(now)
        waits.append(wait)
        now += wait
        assert breaker.allows(now)
        assert breaker.failed(now)
    assert waits == [1.0, 2.0, 4.0, 4.0]


def test_an_attempt_nobody_reports_back_frees_the_way_for_another() -> None:
    breaker = Breaker(failures=1, cool_s=1.0)
    breaker.failed(0.0)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.5)
    assert breaker.allows(2.0)


def test_failures_of_what_was_under_way_do_not_lengthen_the_wait() -> None:
    breaker = Breaker(failures=1, cool_s=1.0)
    breaker.failed(0.0)
    assert not breaker.failed(0.9)
    assert breaker.allows(1.0)


# -- refusals and bounds ---------------------------------------------------------------------


@pytest.mark.requirement("H4")
def test_refusals_have_fixed_words_statuses_of_the_taxonomy_and_whole_seconds() -> None:
    assert {terms.status for terms in REFUSALS.values()} <= {
        400, 401, 403, 404, 405, 413, 421, 429, 502, 503,
    }  # fmt: skip
    for code, terms in REFUSALS.items():
        assert str(refusal(code)) == terms.text
        assert status_of(code) == terms.status
        # Whoever is told to wait is told for how long.
        assert (terms.status in {429, 503}) == (terms.retry_s is not None), code
    assert retry_after_of(refusal("rate_limited", retry_after=0.01)) == "1"
    assert retry_after_of(refusal("not_allowed")) is None
    assert status_of("somebody_elses") == 403


@pytest.mark.parametrize(
    "change",
    [{"request_s": 0}, {"in_flight": -1}, {"requests_per_s": float("nan")},
     {"body_bytes": 100}, {"chunk_bytes": 2 << 20}, {"idle_s": float("inf")}],
    ids=str,
)  # fmt: skip
def test_bounds_nobody_could_keep_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        WallBounds(**change)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_requirement() -> None:
    assert DEFAULT_BOUNDS.request_s == 5
    assert DEFAULT_BOUNDS.in_flight == 512
    assert DEFAULT_BOUNDS.requests_per_s == DEFAULT_BOUNDS.prefix_per_s == 500
    assert DEFAULT_BOUNDS.body_bytes == 1 << 20
    assert DEFAULT_BOUNDS.chunk_bytes == 1 << 16
