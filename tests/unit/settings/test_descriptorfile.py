"""Nodes on their way into a descriptor: what stands behind the public file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.instance_files import InstanceFiles
from zipnet.errors import ConfigError
from zipnet.protocol.descriptor import parse_descriptor
from zipnet.settings.descriptorfile import parse_node_draft, with_entities
from zipnet.settings.publicfile import PublicFile, format_public_file
from zipnet.transport.certificate import node_certificate


@pytest.fixture
def public(tmp_path: Path) -> Path:
    files = InstanceFiles(tmp_path)
    identity = files.servers[0]
    certificate = node_certificate(identity.ed25519_private_key()).der
    path = tmp_path / "a,b.pub"
    path.write_text(format_public_file(PublicFile("node", identity.public, certificate)))
    return path


@pytest.mark.requirement("Z8")
def test_a_fault_domain_and_a_parent_stand_behind_the_file_in_any_order(public: Path) -> None:
    start = f"s0=127.0.0.1:1={public}"
    for end in (",fault-domain=dc/north,parent=root", ",parent=root,fault-domain=dc/north"):
        draft = parse_node_draft(start + end, what="--aggregator", with_parent=True)
        assert (draft.parent, draft.fault_domain) == ("root", "dc/north")
    plain = parse_node_draft(start, what="--server", with_parent=False)
    assert (plain.parent, plain.fault_domain) == (None, "")
    server = parse_node_draft(start + ",fault-domain=x", what="--server", with_parent=False)
    assert server.fault_domain == "x"


@pytest.mark.parametrize(
    "end", [",fault-domain=", ",parent=root", ",fault-domain=a,fault-domain=b"]
)
def test_what_is_no_fault_domain_is_refused(public: Path, end: str) -> None:
    with pytest.raises(ConfigError):
        parse_node_draft(f"s0=127.0.0.1:1={public}{end}", what="--server", with_parent=False)


@pytest.mark.requirement("Z8")
def test_a_descriptor_takes_a_fault_domain_of_one_word_only(tmp_path: Path) -> None:
    text = InstanceFiles(tmp_path).compose().decode()
    said = text.replace('name = "s1"', 'name = "s1"\nfault_domain = "north"')
    domains = [node.fault_domain for node in parse_descriptor(said.encode()).servers]
    assert domains == ["", "north", ""]
    for word in ("two words", "x" * 65, "-x"):
        with pytest.raises(ConfigError, match="fault domain"):
            parse_descriptor(said.replace('"north"', f'"{word}"').encode())


@pytest.mark.requirement("Z25")
def test_each_node_may_name_the_entity_that_answers_for_it(public: Path) -> None:
    drafts = [
        parse_node_draft(f"{name}=127.0.0.1:1={public}", what="--server", with_parent=False)
        for name in ("s0", "s1")
    ]
    named = with_entities(drafts, ["s1=Acme = Söhne, Inc."])
    assert [draft.entity for draft in named] == ["", "Acme = Söhne, Inc."]
    for wrong in ("s1", "s1=", "s2=nobody"):
        with pytest.raises(ConfigError, match="--entity"):
            with_entities(drafts, [wrong])


@pytest.mark.requirement("Z25")
def test_a_descriptor_takes_an_entity_that_shows_what_it_says(tmp_path: Path) -> None:
    text = InstanceFiles(tmp_path).compose().decode()
    said = text.replace('name = "s1"', 'name = "s1"\nentity = "Acme, Inc."')
    entities = [node.entity for node in parse_descriptor(said.encode()).servers]
    assert entities == ["", "Acme, Inc.", ""]
    for wrong in ("x" * 129, " padded", "two\\nlines", "left\\u202eright", "zero\\u200bwidth"):
        with pytest.raises(ConfigError, match="entity"):
            parse_descriptor(said.replace('"Acme, Inc."', f'"{wrong}"').encode())
