"""Settings of access: half a configuration never starts (row L2)."""

from __future__ import annotations

import pytest

from tests.harness.network import LiveNetwork
from zipnet.access.capability import CapabilityRole
from zipnet.errors import ConfigError
from zipnet.settings import load_aggregator, load_client, load_server

KEY = "issuer1" + "ab" * 32


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LiveNetwork:
    return LiveNetwork(tmp_path_factory.mktemp("access"))


def server_flags(network: LiveNetwork) -> dict[str, object]:
    folder = network.folder
    return {
        "descriptor": network.descriptor_file,
        "instance": network.instance,
        "secret_file": folder / "s0.secret",
        "committee_secret_file": folder / "committee.secret",
        "state": folder / "s0.state",
    }


@pytest.mark.requirement("L2")
@pytest.mark.parametrize(
    ("given", "told"),
    {
        "roles without issuers": ({"TOKEN_ROLES": "publish"}, "no issuer is named"),
        "no such role": ({"TOKEN_ROLES": "root", "TOKEN_ISSUERS": KEY}, "not a list of roles"),
        "an admin's role": (
            {"TOKEN_ROLES": "admin-write", "TOKEN_ISSUERS": KEY},
            "only publish, aggregate and read",
        ),
        "half a key": ({"TOKEN_ISSUERS": KEY[:-2]}, "not a list of issuers' keys"),
        "one key twice": ({"TOKEN_ISSUERS": f"{KEY},{KEY}"}, "each once"),
        "users by name": ({"ADMIN_UIDS": "root"}, "not a whole number"),
    }.values(),
)
def test_a_node_that_asks_for_tokens_nobody_may_sign_does_not_start(
    network: LiveNetwork, given: dict[str, str], told: str
) -> None:
    environ = {f"ZIPNET_{name}": value for name, value in given.items()}
    with pytest.raises(ConfigError, match=told) as caught:
        load_server(server_flags(network), environ)
    assert KEY[7:] not in str(caught.value)


def test_what_is_asked_for_is_loaded_and_shown_without_secrets(network: LiveNetwork) -> None:
    environ = {
        "ZIPNET_TOKEN_ISSUERS": KEY,
        "ZIPNET_TOKEN_ROLES": "publish, aggregate",
        "ZIPNET_ADMIN_UIDS": "0,1000",
    }
    settings = load_server(server_flags(network), environ)
    assert settings.access.issuers == (bytes.fromhex("ab" * 32),)
    assert settings.access.asked == {CapabilityRole.PUBLISH, CapabilityRole.AGGREGATE}
    assert settings.admin_uids == (0, 1000)
    assert settings.admin == network.folder / "s0.state" / "admin"
    plain = load_server(server_flags(network), {"RUNTIME_DIRECTORY": "/run/zipnet:/run/other"})
    assert plain.access.asked == frozenset()
    assert str(plain.admin) == "/run/zipnet/admin"


def test_a_token_that_is_no_token_is_refused_before_anything_is_dialled(
    network: LiveNetwork,
) -> None:
    file = network.folder / "wrong.token"
    file.write_text("zipnet-token-1.00.AAAA\n")
    flags = {"descriptor": network.descriptor_file, "token": file}
    with pytest.raises(ConfigError, match="holds no token"):
        load_client(flags, {})
    aggregator = {
        "descriptor": network.descriptor_file,
        "instance": network.instance,
        "secret_file": network.folder / "root.secret",
        "token": file,
    }
    with pytest.raises(ConfigError, match="holds no token"):
        load_aggregator(aggregator, {})
