"""``zipnet token``: from a key to a token that was narrowed, looked at and revoked."""

from __future__ import annotations

import json
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, run_zipnet
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import format_peer_id
from zipnet.protocol.revocation import RevokedKind, open_revocation
from zipnet.settings import read_descriptor
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.tokenfile import read_statement_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LiveNetwork:
    return LiveNetwork(tmp_path_factory.mktemp("token"))


def zipnet(network: LiveNetwork, *words: str | Path) -> str:
    done = run_zipnet("token", *words, cwd=network.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(network: LiveNetwork, *words: str | Path) -> str:
    done = run_zipnet("token", *words, cwd=network.folder)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def minted(network: LiveNetwork) -> Path:
    issuer = zipnet(network, "keygen", "--out", "issuer")
    assert issuer.startswith("issuer1")
    zipnet(
        network, "mint", "--key", "issuer", "--descriptor", network.descriptor_file,
        "--role", "publish", "--role", "read", "--hours", "48", "--out", "token",
    )  # fmt: skip
    return network.folder / "token"


@pytest.mark.requirement("M2")
def test_a_token_is_minted_narrowed_and_looked_at(network: LiveNetwork, minted: Path) -> None:
    assert stat.S_IMODE(minted.stat().st_mode) == 0o600
    told = json.loads(
        zipnet(network, "inspect", "token", "--descriptor", network.descriptor_file, "--json")
    )
    assert (told["roles"], told["state"], told["made_from"]) == ("publish,read", "holds", "none")
    printed = zipnet(
        network, "attenuate", "--token", "token", "--role", "read", "--hours", "1", "--out", "less"
    )
    less = json.loads(
        zipnet(network, "inspect", "less", "--descriptor", network.descriptor_file, "--json")
    )
    assert (less["roles"], less["made_from"]) == ("read", told["id"])
    assert less["expires"] < told["expires"]
    assert printed.strip() == less["id"][:16]
    secret = minted.read_text().strip().split(".")[-1]
    assert secret not in zipnet(network, "inspect", "token")


@pytest.mark.requirement("M2")
def test_mistakes_are_one_line_and_never_repeat_a_token(network: LiveNetwork, minted: Path) -> None:
    line = refused(network, "attenuate", "--token", "token", "--out", "same")
    assert "nothing to take away" in line
    wider = ("attenuate", "--token", "token", "--role", "admin-write", "--out", "wider")
    assert "nothing would be left: the token grants publish, read" in refused(network, *wider)
    assert not (network.folder / "wider").exists()
    assert "no token" in refused(network, "inspect", "issuer")
    (network.folder / "broken").write_text(minted.read_text()[:-9] + "\n")
    assert minted.read_text()[40:80] not in refused(network, "inspect", "broken")
    mint = ("mint", "--key", "issuer", "--descriptor", network.descriptor_file, "--out", "long")
    assert "720" in refused(network, *mint, "--role", "read", "--hours", "721")


@pytest.mark.requirement("Z26")
def test_the_operator_revokes_a_token_and_a_deputy_a_peer(
    network: LiveNetwork, minted: Path
) -> None:
    trusted = read_descriptor(network.descriptor_file)
    operator = trusted.descriptor.operator.ed25519
    base = ("revoke", "--descriptor", network.descriptor_file, "--key")
    secret, _ = read_secret_file(network.folder / "operator.secret", what="operator")
    peer = format_peer_id(Identity.from_secret(secret).peer_id)
    zipnet(network, *base, "operator.secret", "--token", minted, "--out", "first")
    first = open_revocation(read_statement_file(network.folder / "first"), trusted.group, operator)
    assert first.kind is RevokedKind.TOKEN
    assert abs(first.at_ms / 1000 - time.time()) < 60
    done = run_zipnet("keygen", "operator", "--out", "deputy", cwd=network.folder)
    assert done.returncode == 0, done.stderr
    second = (*base, "deputy", "--peer", peer, "--out", "second")
    assert "may not revoke" in refused(network, *second)
    zipnet(
        network, "warrant", "--descriptor", network.descriptor_file, "--key",
        "operator.secret", "--to", "deputy.pub", "--out", "warrant",
    )  # fmt: skip
    zipnet(network, *second, "--warrant", "warrant")
    found = open_revocation(read_statement_file(network.folder / "second"), trusted.group, operator)
    assert found.kind is RevokedKind.PEER
    assert "name one thing" in refused(network, *base, "deputy", "--out", "third")


@pytest.mark.requirement("M13")
def test_a_token_is_renewed_in_its_place_with_the_same_rights_and_never_more(
    network: LiveNetwork, minted: Path
) -> None:
    def told(name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(
            zipnet(network, "inspect", name, "--descriptor", network.descriptor_file, "--json")
        )
        return found

    secret, _ = read_secret_file(network.folder / "operator.secret", what="operator")
    peer = format_peer_id(Identity.from_secret(secret).peer_id)
    for name, words in (
        ("bound", ("--peer", peer)),
        ("narrow", ("--role", "read", "--hours", "3")),
    ):
        zipnet(network, "attenuate", "--token", "token", *words, "--out", f"{name}.token")
    names = ("bound.token", "narrow.token")
    before = {name: told(name) for name in names}
    assert zipnet(network, "renew", "--key", "issuer", *names) == "", "their lives have just begun"
    assert {name: told(name) for name in names} == before
    printed = zipnet(network, "renew", "--key", "issuer", "--left", "100", *names).split()
    after = {name: told(name) for name in names}
    assert printed == [after[name]["id"][:16] for name in names]
    for name in names:
        was, now = before[name], after[name]
        assert now["id"] != was["id"]
        assert (now["roles"], now["peer"], now["state"]) == (was["roles"], was["peer"], "holds")
        assert now["made_from"] == "none", "nothing wider stands behind it"
        assert stat.S_IMODE((network.folder / name).stat().st_mode) == 0o600
    hours = [
        (datetime.fromisoformat(at["expires"]) - datetime.now(UTC)).total_seconds() / 3600
        for at in (after["narrow.token"], after["bound.token"])
    ]
    assert 2.9 < hours[0] < 3.2
    assert 47.9 < hours[1] < 48.2
    zipnet(network, "keygen", "--out", "stranger")
    kept = minted.read_bytes()
    wrong = refused(network, "renew", "--key", "stranger", "--left", "100", minted)
    assert "no issuer" in wrong
    assert minted.read_bytes() == kept
