"""The ratchet moves forward, in place, within its bound."""

from __future__ import annotations

import pytest

from zipnet.errors import LocalProtocolError
from zipnet.protocol.ids import GroupId
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip, step
from zipnet.protocol.secret import Secret

GROUP = GroupId(b"\7" * 32)


def fresh(epoch: int = 0) -> bytearray:
    return initial_chain_key(GROUP, epoch, Secret(b"\5" * 32))


def test_chain_is_bound_to_group_epoch_and_secret() -> None:
    results = {
        bytes(fresh()),
        bytes(fresh(1)),
        bytes(initial_chain_key(GroupId(b"\10" * 32), 0, Secret(b"\5" * 32))),
        bytes(initial_chain_key(GROUP, 0, Secret(b"\6" * 32))),
    }
    assert len(results) == 4


@pytest.mark.spec(4.2)
def test_step_overwrites_the_old_key_in_the_same_buffer() -> None:
    key = fresh()
    alias, old = memoryview(key), bytes(key)
    step(key)
    assert bytes(alias) == bytes(key) != old
    assert len(key) == 32


@pytest.mark.spec(4.3)
def test_pad_key_depends_on_the_header_and_leaves_the_chain_alone() -> None:
    key = fresh()
    old = bytes(key)
    first, second = pad_key(key, b"\1" * 32), pad_key(key, b"\2" * 32)
    assert key == old
    step(key)
    assert len({bytes(first), bytes(second), bytes(key), bytes(pad_key(key, b"\1" * 32))}) == 4


@pytest.mark.spec(4.2)
def test_refused_skip_leaves_the_key_as_it_was() -> None:
    key = fresh()
    old = bytes(key)
    for rounds in (-1, 11):
        with pytest.raises(LocalProtocolError):
            skip(key, rounds, limit=10)
        assert key == old
    skip(key, 0, limit=10)
    assert key == old
    skip(key, 10, limit=10)
    assert key != old


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(LocalProtocolError):
        step(bytearray(31))
    with pytest.raises(LocalProtocolError):
        skip(bytearray(33), 1, limit=1)
    with pytest.raises(LocalProtocolError):
        pad_key(bytearray(31), bytes(32))
    with pytest.raises(LocalProtocolError):
        pad_key(fresh(), bytes(31))
    with pytest.raises(LocalProtocolError):
        initial_chain_key(GROUP, 0, Secret(bytes(31)))
    with pytest.raises(LocalProtocolError):
        initial_chain_key(GROUP, 1 << 64, Secret(bytes(32)))
