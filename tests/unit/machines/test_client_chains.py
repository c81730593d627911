from __future__ import annotations

import pytest

from tests.harness.committee import HarnessCommittee
from zipnet.errors import GuardError, LocalProtocolError
from zipnet.machines import client_chains
from zipnet.machines.client_chains import ClientChains, RoundGuard
from zipnet.protocol.ids import Digest, RoundNumber, ServerIndex
from zipnet.protocol.ratchet import initial_chain_key, pad_key, step
from zipnet.protocol.secret import Secret

SHARED = [bytes(range(i, i + 32)) for i in range(3)]


def _chains(committee: HarnessCommittee, *, first_round: int = 1, limit: int = 50) -> ClientChains:
    shared = {ServerIndex(i): (7, Secret(data)) for i, data in enumerate(SHARED)}
    return ClientChains(
        committee.descriptor.group,
        shared,
        first_round=RoundNumber(first_round),
        max_skip_rounds=limit,
    )


@pytest.fixture(scope="module")
def committee() -> HarnessCommittee:
    return HarnessCommittee()


class TestRoundGuard:
    @pytest.mark.spec("8.1")
    @pytest.mark.spec("4.5")
    def test_each_round_passes_once_and_only_forward(self) -> None:
        guard = RoundGuard()
        guard.claim(RoundNumber(3))
        for again in (3, 2, 1, 0):
            with pytest.raises(GuardError):
                guard.claim(RoundNumber(again))
        guard.claim(RoundNumber(4))
        assert guard.last == 4

    def test_a_guard_without_memory_would_let_a_round_through_twice(self) -> None:
        class Mutant(RoundGuard):
            def claim(self, round_number: RoundNumber) -> None:
                RoundGuard().claim(round_number)

        mutant = Mutant()
        mutant.claim(RoundNumber(3))
        mutant.claim(RoundNumber(3))  # so the test above does tell them apart


class TestClientChains:
    @pytest.mark.spec("4.2")
    def test_keys_are_those_of_the_initial_key_stepped_since_the_first_round(
        self, committee: HarnessCommittee
    ) -> None:
        chains = _chains(committee, first_round=4)
        header = committee.next_header(round=RoundNumber(9))
        keys = chains.take_pad_keys(header)
        expected: list[bytes] = []
        for data in SHARED:
            key = initial_chain_key(committee.descriptor.group, 7, Secret(data))
            for _ in range(9 - 4):
                step(key)
            expected.append(bytes(pad_key(key, header.hash)))
        assert [bytes(key) for key in keys] == expected
        assert chains.position == 10

    @pytest.mark.spec("4.5")
    def test_a_round_has_no_keys_once_they_were_taken(self, committee: HarnessCommittee) -> None:
        chains = _chains(committee)
        header = committee.next_header(round=RoundNumber(5))
        chains.take_pad_keys(header)
        for number in (5, 4, 1):
            with pytest.raises(GuardError):
                chains.take_pad_keys(committee.next_header(round=RoundNumber(number)))

    def test_chains_that_are_not_stepped_would_give_the_same_keys_again(
        self, committee: HarnessCommittee, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        header = committee.next_header(round=RoundNumber(1))
        later = committee.next_header(round=RoundNumber(2), opened_at_ms=header.opened_at_ms)
        monkeypatch.setattr(client_chains, "step", lambda _key: None)
        monkeypatch.setattr(type(later), "hash", header.hash)
        mutant = _chains(committee)
        monkeypatch.setattr(client_chains, "skip", lambda *_args, **_kwargs: None)
        first, second = mutant.take_pad_keys(header), mutant.take_pad_keys(later)
        assert first == second
        monkeypatch.undo()
        monkeypatch.setattr(type(later), "hash", header.hash)
        sound = _chains(committee)
        assert sound.take_pad_keys(header) != sound.take_pad_keys(later)

    def test_only_roster_servers_give_keys_and_all_chains_move(
        self, committee: HarnessCommittee
    ) -> None:
        chains, other = _chains(committee), _chains(committee)
        small = committee.next_header(roster=(ServerIndex(0), ServerIndex(2)))
        assert len(chains.take_pad_keys(small)) == 2
        other.take_pad_keys(committee.next_header())
        second = committee.next_header(round=RoundNumber(2))
        assert chains.take_pad_keys(second) == other.take_pad_keys(second)

    def test_a_skip_over_the_bound_is_refused_and_changes_nothing(
        self, committee: HarnessCommittee
    ) -> None:
        chains = _chains(committee, limit=10)
        with pytest.raises(LocalProtocolError):
            chains.take_pad_keys(committee.next_header(round=RoundNumber(12)))
        assert chains.position == 1
        assert len(chains.take_pad_keys(committee.next_header(round=RoundNumber(11)))) == 3

    def test_wiping_leaves_nothing_and_inputs_are_wiped_at_once(
        self, committee: HarnessCommittee
    ) -> None:
        secret = Secret(SHARED[0])
        chains = ClientChains(
            committee.descriptor.group,
            {ServerIndex(0): (1, secret)},
            first_round=RoundNumber(1),
            max_skip_rounds=5,
        )
        assert secret.wiped
        held = chains._keys[ServerIndex(0)]
        assert any(held)
        chains.wipe()
        assert not any(held)
        with pytest.raises(LocalProtocolError):
            chains.take_pad_keys(committee.next_header())

    def test_repr_shows_no_key(self, committee: HarnessCommittee) -> None:
        chains = _chains(committee)
        key = bytes(chains._keys[ServerIndex(0)])
        assert key.hex() not in repr(chains)
        assert repr(key) not in repr(chains)
        assert Digest(key) == key
