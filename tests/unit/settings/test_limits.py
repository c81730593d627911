"""The bounds of the wall as a setting: by name, whole or refused, and in force in the node."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.harness.network import LiveNetwork
from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.errors import ConfigError
from zipnet.settings import load_gateway, load_server
from zipnet.settings.limits import bounds_of, parse_limits


def test_bounds_are_changed_by_name_and_the_others_stay() -> None:
    given = parse_limits("requests_per_s=200.5, handshakes=32,")
    assert bounds_of(given) == replace(DEFAULT_BOUNDS, requests_per_s=200.5, handshakes=32)
    assert bounds_of(parse_limits("")) == DEFAULT_BOUNDS


def test_every_bound_can_be_set() -> None:
    for field in fields(WallBounds):
        value = getattr(DEFAULT_BOUNDS, field.name) * 2
        changed = bounds_of(parse_limits(f"{field.name}={value}"))
        assert changed == replace(DEFAULT_BOUNDS, **{field.name: value})


REFUSED = {
    "no such bound": "speed=3",
    "no number": "handshakes=many",
    "half of a whole": "handshakes=1.5",
    "twice": "handshakes=1,handshakes=2",
    "negative": "handshakes=-1",
    "no name": "5",
    "no text": 5,
    "infinite": "idle_s=inf",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_is_no_list_of_limits_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"limit|text"):
        parse_limits(value)


def test_a_node_takes_its_bounds_from_its_settings_and_refuses_impossible_ones(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    network = LiveNetwork(tmp_path_factory.mktemp("limits"))
    folder = network.folder
    flags: dict[str, object] = {
        "descriptor": network.descriptor_file,
        "instance": network.instance,
        "secret_file": folder / "s0.secret",
        "committee_secret_file": folder / "committee.secret",
        "state": folder / "s0.state",
    }
    settings = load_server(flags, {"ZIPNET_LIMITS": "request_s=2, sessions=100"})
    assert settings.bounds == replace(DEFAULT_BOUNDS, request_s=2.0, sessions=100)
    assert ("LIMITS", "request_s=2, sessions=100") in [
        (item.name, item.value) for item in settings.effective
    ]
    assert load_server(flags, {}).bounds == DEFAULT_BOUNDS
    gateway = load_gateway(
        {"descriptor": network.descriptor_file}, {"ZIPNET_LIMITS": "requests_per_s=20"}
    )
    assert gateway.bounds == replace(DEFAULT_BOUNDS, requests_per_s=20.0)
    with pytest.raises(ConfigError, match=r"LIMITS.*body_bytes"):
        load_server(flags, {"ZIPNET_LIMITS": "body_bytes=100"})
