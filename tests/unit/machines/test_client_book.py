"""The clients as one server holds them: opened once, kept to the end of a round, given up."""

from __future__ import annotations

from zipnet.machines.client_book import ClientBook
from zipnet.machines.registry import RegistryView
from zipnet.machines.server_effects import AdmitClient, RetireChain, RetireOtherChains
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber
from zipnet.protocol.registration import RegistryChange

ANNA, BERT = RegistryIndex(0), RegistryIndex(1)


def registration_of(index: int) -> Digest:
    return Digest(bytes([index + 1]) * 32)


def joining(index: int) -> RegistryChange:
    client = (PeerId(bytes([index]) * 32), bytes([index]) * 32)
    return RegistryChange(RegistryIndex(index), client, registration_of(index), RoundNumber(1))


def leaving(index: int) -> RegistryChange:
    return RegistryChange(RegistryIndex(index), None, None, RoundNumber(2))


def test_a_registration_is_opened_once_and_not_at_all_where_its_client_left_before() -> None:
    book = ClientBook()
    book.register(joining(0))
    book.register(joining(1))
    assert book.forget(BERT) == RetireChain(BERT, registration_of(1))
    assert list(book.take_new()) == [AdmitClient(joining(0))]
    assert list(book.take_new()) == []
    assert book.is_by(ANNA, registration_of(0))
    assert not book.is_by(ANNA, registration_of(1))
    assert not book.is_by(BERT, registration_of(1))


def test_who_leaves_counts_until_another_round_opens() -> None:
    book = ClientBook()
    book.register(joining(0))
    assert not book.is_admitted(ANNA)
    book.admit(ANNA)
    book.forget(ANNA)
    assert book.is_admitted(ANNA)
    book.open_round()
    assert not book.is_admitted(ANNA)
    book.admit(ANNA)  # its chain came late
    assert not book.is_admitted(ANNA)


def test_who_cannot_be_held_is_to_be_retired_for_as_long_as_the_registry_has_it() -> None:
    book, registry = ClientBook(), RegistryView()
    registry.apply((joining(0), joining(1)))
    for index in (BERT, ANNA):
        book.give_up(index)
    assert book.to_retire(registry) == (ANNA, BERT)
    registry.apply((leaving(0),))
    assert book.to_retire(registry) == (BERT,)
    book.forget(BERT)
    assert book.to_retire(registry) == ()


def test_a_registry_that_was_not_followed_erases_who_is_gone_and_opens_who_is_new() -> None:
    book, registry = ClientBook(), RegistryView()
    book.register(joining(0))
    list(book.take_new())
    book.admit(ANNA)
    registry.apply((joining(0), joining(1), leaving(0)))
    assert book.restore(registry) == [
        RetireChain(ANNA, registration_of(0)),
        RetireOtherChains(frozenset({BERT})),
    ]
    assert not book.is_admitted(ANNA)
    assert list(book.take_new()) == [AdmitClient(joining(1))]
    assert book.restore(registry) == [RetireOtherChains(frozenset({BERT}))]
    assert list(book.take_new()) == []
