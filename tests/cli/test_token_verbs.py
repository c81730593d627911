"""``zipnet token``: from a key to a token that was narrowed, looked at and revoked."""

from __future__ import annotations

import json
import stat
import time
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
