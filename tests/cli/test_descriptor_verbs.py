"""Promises of `zipnet descriptor`: what create writes verifies after sign and in no other way."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.command import Done, zipnet
from zipnet.protocol.ids import format_peer_id
from zipnet.settings.keyfiles import create_identity_files, create_secret_file

NODES = ("s0", "s1", "s2", "root", "leaf")


@dataclass
class Workshop:
    """A folder with keys, and the command run in it."""

    folder: Path
    operator: str

    def run(self, *words: str) -> Done:
        return zipnet("descriptor", *words, cwd=self.folder)

    def create(self, *more: str, **replaced: str) -> Done:
        nodes = {
            name: f"{name}=127.0.0.1:{4000 + index}={name}.key.pub"
            for index, name in enumerate(NODES)
        }
        nodes["leaf"] += ",parent=root"
        nodes |= replaced
        words = [
            "create",
            "--name",
            "acme.test",
            "--committee-secret-file",
            "c",
            "--operator",
            "op.pub",
        ]
        for name, text in nodes.items():
            words += ["--server" if name.startswith("s") else "--aggregator", text]
        return self.run(*words, "--out", "d.toml", *more)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    for name in NODES:
        create_identity_files(tmp_path / f"{name}.key", "node", os.urandom)
    create_secret_file(tmp_path / "c", os.urandom)
    operator = create_identity_files(tmp_path / "op", "operator", os.urandom)
    return Workshop(tmp_path, format_peer_id(operator.peer_id))


def _fails(done: Done, *expected: str) -> None:
    assert done.code == 2, done.everything
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for text in expected:
        assert text in done.err


@pytest.mark.requirement("Z3")
def test_create_sign_verify_show(workshop: Workshop) -> None:
    assert (
        workshop.create("--num-slots", "16", "--kem-epoch", "2h", "--round-period", "500ms").code
        == 0
    )
    _fails(workshop.run("verify", "d.toml"), "d.toml", "not signed")
    signed = workshop.run("sign", "d.toml", "--key", "op")
    assert (signed.code, signed.out) == (0, workshop.operator + "\n")
    pinned = workshop.run("verify", "d.toml", "--operator", workshop.operator)
    assert pinned.code == 0
    assert pinned.out.startswith("descriptor ok: acme.test group=")
    shown = json.loads(workshop.run("show", "d.toml", "--json").out)
    assert shown["signed"] is True
    assert shown["operator"] == workshop.operator
    assert (shown["params"]["num_slots"], shown["params"]["kem_epoch_s"]) == (16, 7200)
    assert shown["cadence"]["round_period_ms"] == 500
    assert [node["name"] for node in shown["servers"]] == ["s0", "s1", "s2"]
    assert [(node["name"], node["parent"]) for node in shown["aggregators"]] == [
        ("root", None),
        ("leaf", "root"),
    ]
    assert "acme.test" in workshop.run("show", "d.toml").out
    text = (workshop.folder / "d.toml").read_text() + pinned.everything + signed.everything
    for path in workshop.folder.iterdir():
        if path.suffix != ".pub" and path.name != "d.toml":
            assert path.read_text().strip().rpartition(":")[2] not in text


@pytest.mark.requirement("Z3")
def test_an_altered_expired_or_foreign_descriptor_is_refused(workshop: Workshop) -> None:
    workshop.create()
    workshop.run("sign", "d.toml", "--key", "op")
    _fails(workshop.run("verify", "d.toml", "--at", "2099-01-01"), "expired")
    _fails(workshop.run("verify", "d.toml", "--at", "2020-01-01T00:00:00Z"), "not valid before")
    _fails(workshop.run("verify", "d.toml", "--operator", "zp1" + "0" * 64), "another operator")
    _fails(workshop.run("verify", "d.toml", "--at", "soon"), "--at is no time")
    path = workshop.folder / "d.toml"
    path.write_text(path.read_text().replace("127.0.0.1:4001", "127.0.0.1:4999"))
    _fails(workshop.run("verify", "d.toml"), "altered")


def test_only_the_named_operator_signs_and_signing_again_replaces(workshop: Workshop) -> None:
    workshop.create()
    _fails(workshop.run("sign", "d.toml", "--key", "s0.key"), "another operator key")
    workshop.run("sign", "d.toml", "--key", "op")
    assert workshop.run("sign", "d.toml", "--key", "op").code == 0
    assert (workshop.folder / "d.toml").read_text().count("zipnet-signature") == 1
    assert workshop.run("verify", "d.toml").code == 0
    assert sorted(workshop.folder.glob(".*")) == []


def test_create_overwrites_nothing_and_writes_nothing_on_error(workshop: Workshop) -> None:
    _fails(workshop.create("--slot-bytes", "1"), "slot_bytes")
    _fails(workshop.create("--tdx", "required"), "--tdx-committee FILE")
    assert not (workshop.folder / "d.toml").exists()
    (workshop.folder / "d.toml").write_text("precious")
    _fails(workshop.create(), "exists")
    assert (workshop.folder / "d.toml").read_text() == "precious"


BROKEN = {
    "no address": ({"s0": "s0"}, "NAME=HOST:PORT=PUBFILE"),
    "bad port": ({"s0": "s0=127.0.0.1:x=s0.key.pub"}, "port"),
    "missing public file": ({"s0": "s0=127.0.0.1:4000=gone.pub"}, "gone.pub"),
    "the secret in place of the public file": ({"s0": "s0=127.0.0.1:4000=s0.key"}, "TOML"),
    "an operator's public file": ({"s0": "s0=127.0.0.1:4000=op.pub"}, "kind node"),
    "one identity twice": ({"s0": "s0=127.0.0.1:4000=s1.key.pub"}, "shares its identity"),
    "one endpoint twice": ({"s0": "s0=127.0.0.1:4001=s0.key.pub"}, "shares its endpoint"),
    "a word mistyped": (
        {"s0": "s0=127.0.0.1:4000=s0.key.pub,fault-domian=north"},
        "nothing is called 'fault-domian'",
    ),
    "unknown parent": ({"leaf": "leaf=127.0.0.1:4004=leaf.key.pub,parent=x"}, "root"),
    "name with a quote": ({"s0": 's"0=127.0.0.1:4000=s0.key.pub'}, ""),
}


@pytest.mark.parametrize("case", BROKEN.keys())
def test_a_node_that_does_not_fit_is_refused_in_one_line(workshop: Workshop, case: str) -> None:
    replaced, expected = BROKEN[case]
    done = workshop.create(**replaced)
    if case == "name with a quote":
        assert done.code == 0
        shown = json.loads(workshop.run("show", "d.toml", "--json").out)
        assert shown["servers"][0]["name"] == 's"0'
        return
    _fails(done, expected)
    secret = (workshop.folder / "s0.key").read_text().strip().rpartition(":")[2]
    assert secret not in done.everything


@pytest.mark.requirement("Z25")
def test_entities_are_said_shown_and_corrected(workshop: Workshop) -> None:
    somewhere = {"s0": "s0=127.0.0.1:4000=s0.key.pub,fault-domain=north"}
    made = workshop.create(
        "--entity", "s0=Acme Foundation, Geneva", "--entity", "leaf=Leaf Oy", **somewhere
    )
    assert made.code == 0, made.err
    assert workshop.run("sign", "d.toml", "--key", "op").code == 0
    shown = workshop.run("show", "d.toml").out
    assert "Acme Foundation, Geneva" in shown
    assert "Leaf Oy" in shown
    assert "fault-domain=north" in shown
    next_one = ("renew", "d.toml", "--entity", "s0=Acme Foundation, Bern", "--out", "d2.toml")
    assert workshop.run(*next_one).code == 0
    later = json.loads(workshop.run("show", "d2.toml", "--json").out)
    entities = [node.get("entity") for node in (*later["servers"], *later["aggregators"])]
    assert [node.get("fault_domain") for node in later["servers"]] == ["north", None, None]
    assert entities == ["Acme Foundation, Bern", None, None, None, "Leaf Oy"]
    _fails(workshop.run(*next_one[:2], "--entity", "s9=x", "--out", "d3.toml"), "s9")


def test_the_next_version_is_made_of_a_signed_one_only(workshop: Workshop) -> None:
    assert workshop.create().code == 0
    renew = ("renew", "d.toml", "--out", "d2.toml")
    _fails(workshop.run(*renew), "not signed")
    assert workshop.run("sign", "d.toml", "--key", "op").code == 0
    whole = (workshop.folder / "d.toml").read_text()
    (workshop.folder / "d.toml").write_text(whole.replace("127.0.0.1", "127.0.0.9", 1))
    _fails(workshop.run(*renew), "altered")
    newcomer = ("--seat", "s0", "--server", "s9=127.0.0.1:4009=s1.key.pub")
    _fails(workshop.run("replace", "d.toml", *newcomer, "--out", "d2.toml"), "altered")
    assert not (workshop.folder / "d2.toml").exists()
