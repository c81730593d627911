"""Ids: separated by use, by part boundary and by instance."""

from __future__ import annotations

import pytest

from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.ids import (
    PeerId,
    committee_fingerprint,
    derive,
    format_peer_id,
    group_id,
    instance_id,
    keyed,
    parse_peer_id,
    short_peer_id,
    validate_universe,
)
from zipnet.protocol.params import RoundParams
from zipnet.protocol.secret import Secret

SECRET = Secret(bytes(range(7, 39)))


def test_parts_cannot_be_shifted_against_each_other() -> None:
    results = {
        derive("header", *parts) for parts in ((), (b"",), (b"", b""), (b"ab",), (b"a", b"b"))
    }
    assert len(results) == 5


def test_uses_are_separated_in_both_modes() -> None:
    assert derive("header", b"x") != derive("record", b"x")
    assert keyed("header", bytes(32), b"x") != keyed("record", bytes(32), b"x")
    assert keyed("header", bytes(32), b"x") != derive("header", b"x")


@pytest.mark.requirement("Z1")
def test_group_id_changes_with_every_thing_that_must_agree() -> None:
    base: dict[str, object] = {
        "universe": "zipnet",
        "instance": "acme.mainnet",
        "params": RoundParams(),
        "committee_fingerprint": b"\1" * 32,
        "attestation_policy_digest": b"\2" * 32,
        "trust_root_digest": b"\3" * 32,
    }
    changes: dict[str, object] = {
        "universe": "lab",
        "instance": "acme.testnet",
        "params": RoundParams(max_skip_rounds=7),
        "committee_fingerprint": b"\4" * 32,
        "attestation_policy_digest": b"\5" * 32,
        "trust_root_digest": b"\6" * 32,
    }
    results = {group_id(**base)}  # type: ignore[arg-type]
    for name, value in changes.items():
        results.add(group_id(**{**base, name: value}))  # type: ignore[arg-type]
    assert len(results) == 1 + len(changes)


def test_fingerprint_of_one_secret_differs_between_instances() -> None:
    first = committee_fingerprint(SECRET, instance_id("zipnet", "acme.mainnet"))
    second = committee_fingerprint(SECRET, instance_id("zipnet", "acme.testnet"))
    assert first != second


def test_fingerprint_of_a_wiped_secret_is_refused() -> None:
    secret = Secret(bytes(32))
    secret.wipe()
    with pytest.raises(LocalProtocolError):
        committee_fingerprint(secret, instance_id("zipnet", "a.b"))


def test_peer_id_text_is_strict() -> None:
    peer = PeerId(bytes(range(32)))
    text = format_peer_id(peer)
    assert parse_peer_id(text) == peer
    assert text.startswith(short_peer_id(peer))
    for bad in (text + "\n", " " + text, text.replace("zp1", "zp2"), text[:-2], ""):
        with pytest.raises(ConfigError):
            parse_peer_id(bad)


def test_universe_may_be_one_label() -> None:
    assert validate_universe("zipnet") == "zipnet"
    for bad in ("", "Zipnet", "a..b", "a b", "zipnet\n", ".".join(["x" * 32] * 4)):
        with pytest.raises(ConfigError):
            validate_universe(bad)
