"""Promises of `zipnet keygen`: owner-only files, nothing overwritten, no secret printed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.harness.command import zipnet
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import format_peer_id
from zipnet.settings.publicfile import read_public_file
from zipnet.settings.secretfiles import read_secret_file
from zipnet.transport.certificate import certificate_public_key


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("kind", ["node", "operator"])
def test_an_identity_is_two_files_that_belong_together(tmp_path: Path, kind: str) -> None:
    done = zipnet("keygen", kind, "--out", "k", cwd=tmp_path)
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.pub"]
    assert _mode(tmp_path / "k") == 0o600
    secret, _ = read_secret_file(tmp_path / "k", what="test")
    public = read_public_file(tmp_path / "k.pub", kind=kind)
    assert Identity.from_secret(secret).public == public.identity
    assert done.out == format_peer_id(public.peer_id) + "\n"
    with secret.reveal() as view:
        assert view.hex() not in done.everything
        assert view.hex() not in (tmp_path / "k.pub").read_text()
    if kind == "node":
        assert certificate_public_key(public.certificate) == public.identity.ed25519


def test_plain_keygen_makes_a_node_and_json_says_so(tmp_path: Path) -> None:
    done = zipnet("keygen", "--out", "k", "--json", cwd=tmp_path)
    told = json.loads(done.out)
    public = read_public_file(tmp_path / "k.pub", kind="node")
    assert told == {
        "kind": "node",
        "peer_id": format_peer_id(public.peer_id),
        "secret_file": "k",
        "public_file": "k.pub",
    }


def test_a_committee_secret_has_no_public_half_and_is_not_shown(tmp_path: Path) -> None:
    done = zipnet("keygen", "committee", "--out", "c", cwd=tmp_path)
    assert (done.code, done.out) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert _mode(tmp_path / "c") == 0o600
    secret, _ = read_secret_file(tmp_path / "c", what="test")
    with secret.reveal() as view:
        assert view.hex() not in done.everything


@pytest.mark.parametrize("existing", ["k", "k.pub"])
def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    done = zipnet("keygen", "--out", "k", cwd=tmp_path)
    assert done.code == 2
    assert done.err.startswith(f"error: file {existing} exists — ")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        (existing, "precious")
    ]


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    assert zipnet("keygen", "--out", "k", cwd=tmp_path).code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    done = zipnet("keygen", "--out", "no/such/k", cwd=tmp_path)
    assert done.code == 2
    assert done.err == "error: file no/such/k cannot be written: No such file or directory\n"
