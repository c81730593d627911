"""Promises of the descriptor: what is signed is what is read, and nothing else is trusted."""

from __future__ import annotations

import base64
import re
import string
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.instance_files import NOW, InstanceFiles
from zipnet.errors import ConfigError, VerificationError
from zipnet.protocol.descriptor import (
    MAX_DESCRIPTOR_BYTES,
    parse_descriptor,
    sign_descriptor,
    trust_descriptor,
)
from zipnet.protocol.ids import ServerIndex, committee_fingerprint

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstanceFiles:
    return InstanceFiles(tmp_path_factory.mktemp("instance"))


@pytest.fixture(scope="module")
def signed(files: InstanceFiles) -> bytes:
    return files.descriptor.read_bytes()


def _trust(data: bytes, now: datetime = NOW) -> TrustedDescriptor:
    return trust_descriptor(parse_descriptor(data), now=now)


def test_what_was_composed_is_what_is_read(files: InstanceFiles, signed: bytes) -> None:
    trusted = _trust(signed)
    descriptor = trusted.descriptor
    assert (descriptor.name, descriptor.universe, int(descriptor.version)) == (
        "acme.test",
        "zipnet",
        1,
    )
    assert (descriptor.not_before, descriptor.not_after) == (files.not_before, files.not_after)
    assert (descriptor.params, descriptor.cadence) == (files.params, files.cadence)
    assert [node.name for node in descriptor.servers] == ["s0", "s1", "s2"]
    assert [node.port for node in descriptor.servers] == [41_001, 41_002, 41_003]
    assert trusted.committee == tuple(server.public for server in files.servers)
    assert descriptor.operator == files.operator.public
    assert descriptor.committee_fingerprint == committee_fingerprint(
        files.committee, descriptor.instance
    )
    assert trusted.group == descriptor.group


@pytest.mark.requirement("Z3")
def test_an_unsigned_descriptor_parses_but_is_not_trusted(files: InstanceFiles) -> None:
    unsigned = files.compose()
    assert parse_descriptor(unsigned).signature is None
    with pytest.raises(ConfigError, match="not signed"):
        _trust(unsigned)


@pytest.mark.requirement("Z3")
def test_validity_includes_its_first_instant_and_excludes_its_last(
    files: InstanceFiles, signed: bytes
) -> None:
    instant = timedelta(microseconds=1)
    for good in (files.not_before, files.not_after - instant):
        _trust(signed, good)
    with pytest.raises(ConfigError, match="not valid before"):
        _trust(signed, files.not_before - instant)
    with pytest.raises(ConfigError, match="expired"):
        _trust(signed, files.not_after)


@pytest.mark.requirement("Z3")
@given(data=st.data())
def test_no_single_changed_byte_is_trusted(signed: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(signed) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != signed[position]))
    altered = signed[:position] + bytes([value]) + signed[position + 1 :]
    with pytest.raises(ConfigError):
        _trust(altered)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_descriptor_or_a_config_error(noise: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_descriptor(noise)


def test_text_before_and_after_the_signature_is_covered(signed: bytes) -> None:
    for altered in (b"# hello\n" + signed, signed + b"# hello\n", signed + signed, signed[:-1]):
        with pytest.raises(ConfigError):
            _trust(altered)


def test_one_half_of_the_signature_is_not_enough(signed: bytes) -> None:
    body, _, line = signed.rpartition(b": ")
    signature = bytearray(base64.b64decode(line))
    for position in (0, 63, 64, len(signature) - 1):
        broken = bytearray(signature)
        broken[position] ^= 1
        with pytest.raises(ConfigError, match="altered"):
            _trust(body + b": " + base64.b64encode(broken) + b"\n")
    with pytest.raises(ConfigError, match="signature has"):
        _trust(body + b": " + base64.b64encode(signature[:64]) + b"\n")


def test_a_signature_has_one_text(signed: bytes) -> None:
    assert signed.endswith(b"==\n"), "the last digit has spare bits"
    last = signed[-4:-3]
    digits = [bytes([byte]) for byte in (string.ascii_letters + string.digits + "+/").encode()]
    meaning = base64.b64decode(b"A" + last + b"==")
    same = [digit for digit in digits if base64.b64decode(b"A" + digit + b"==") == meaning]
    assert len(same) == 16
    for digit in same:
        if digit != last:
            with pytest.raises(ConfigError, match="canonical"):
                _trust(signed[:-4] + digit + signed[-3:])


def test_another_operator_neither_signs_nor_passes_for_the_pinned_one(
    files: InstanceFiles, signed: bytes
) -> None:
    other = files.servers[0]
    with pytest.raises(ConfigError, match="another operator key"):
        sign_descriptor(signed, other)
    parsed = parse_descriptor(signed)
    mine = files.operator.peer_id
    assert trust_descriptor(parsed, now=NOW, expected_operator=mine).descriptor is parsed
    with pytest.raises(ConfigError, match="another operator"):
        trust_descriptor(parsed, now=NOW, expected_operator=other.peer_id)


def test_signing_again_replaces_the_signature_and_keeps_the_text(
    files: InstanceFiles, signed: bytes
) -> None:
    again = sign_descriptor(signed, files.operator)
    assert again.count(b"zipnet-signature") == 1
    assert _trust(again).descriptor.signed_bytes == _trust(signed).descriptor.signed_bytes


GROUP_CHANGES: dict[str, tuple[bytes, bytes, bool]] = {
    "name": (b'name = "acme.test"', b'name = "acme.prod"', True),
    "universe": (b'universe = "zipnet"', b'universe = "lab"', True),
    "parameters": (b"num_slots = 64", b"num_slots = 32", True),
    "pace": (b"round_period_ms = 2000", b"round_period_ms = 1000", False),
    "version": (b"version = 1", b"version = 2", False),
}


@pytest.mark.requirement("Z1")
@pytest.mark.parametrize("case", GROUP_CHANGES.keys())
def test_the_group_changes_with_what_must_agree_and_with_nothing_else(
    files: InstanceFiles, case: str
) -> None:
    old, new, changes = GROUP_CHANGES[case]
    text = files.compose()
    assert old in text
    before, after = parse_descriptor(text), parse_descriptor(text.replace(old, new, 1))
    assert (before.group != after.group) is changes


@pytest.mark.requirement("Z1")
def test_two_operators_with_one_name_do_not_share_a_group(
    files: InstanceFiles, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = InstanceFiles(tmp_path_factory.mktemp("other"))
    mine, theirs = parse_descriptor(files.compose()), parse_descriptor(other.compose())
    assert mine.name == theirs.name
    assert mine.instance == theirs.instance
    assert mine.group != theirs.group


BROKEN: dict[str, tuple[str, str, str]] = {
    "unknown key": ("format = 1", "format = 1\ncolour = 1", "colour"),
    "unknown key in a table": ("[tdx]", "[tdx]\ncolour = 1", "colour"),
    "missing key": ("max_absent = 0\n", "", "max_absent"),
    "wrong type": ("max_absent = 0", 'max_absent = "0"', "max_absent"),
    "true for a number": ("max_absent = 0", "max_absent = true", "max_absent"),
    "unknown format": ("format = 1", "format = 2", "format 2"),
    "version zero": ("\nversion = 1", "\nversion = 0", "version"),
    "version too high": ("\nversion = 1", "\nversion = 4294967296", "version"),
    "no namespace": ('"acme.test"', '"acme"', "namespaced"),
    "too many absent": ("max_absent = 0", "max_absent = 2", "max_absent"),
    "negative absent": ("max_absent = 0", "max_absent = -1", "max_absent"),
    "no time zone": ("2026-05-31T00:00:00Z", "2026-05-31T00:00:00", "time zone"),
    "ends before it starts": ("2026-08-30", "2026-01-30", "not_after"),
    "unknown tdx mode": ('mode = "off"', 'mode = "maybe"', "tdx.mode"),
    "fingerprint in capitals": ('fingerprint = "', 'fingerprint = "A', "fingerprint"),
    "operator is no identity": ('operator = "', 'operator = "AAAA', "operator"),
    "operator is no base64": ('operator = "', 'operator = "!', "base64"),
    "endpoint without port": ("127.0.0.1:41001", "127.0.0.1", "host:port"),
    "port zero": ("127.0.0.1:41001", "127.0.0.1:0", "host:port"),
    "one endpoint twice": ("127.0.0.1:41001", "127.0.0.1:41002", "endpoint"),
    "one name twice": ('name = "s1"', 'name = "s0"', "named 's0'"),
    "a parent that is not there": ('parent = "root"', 'parent = "x"', "root"),
    "its own parent": ('parent = "root"', 'parent = "leaf"', "root"),
    "slots out of bounds": ("num_slots = 64", "num_slots = 0", "num_slots"),
    "body too large for a frame": ("slot_bytes = 256", "slot_bytes = 32768", "body"),
    "folding ends after the round": ("deadline_ms = 1000", "deadline_ms = 9000", "fold"),
    "larger than the cap": ("format = 1", "format = 1 #" + "#" * MAX_DESCRIPTOR_BYTES, "larger"),
}


@pytest.mark.parametrize("case", BROKEN.keys())
def test_a_descriptor_that_breaks_a_rule_is_refused_by_name(
    files: InstanceFiles, case: str
) -> None:
    old, new, expected = BROKEN[case]
    text = files.compose().decode()
    assert old in text
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse_descriptor(text.replace(old, new, 1).encode())


def test_a_committee_of_two_is_refused(files: InstanceFiles) -> None:
    text = files.compose().decode()
    fewer = text[: text.rindex("[[server]]")] + text[text.index("[[aggregator]]") :]
    with pytest.raises(ConfigError, match="3, 5 or 7"):
        parse_descriptor(fewer.encode())


def _blocks(text: str, kind: str) -> list[str]:
    parts = re.split(r"(?m)^(?=\[\[)", text)
    return [part for part in parts if part.startswith(f"[[{kind}]]")]


def _renamed(block: str, name: str, port: int) -> str:
    block = re.sub(r'name = "\w+"', f'name = "{name}"', block, count=1)
    return re.sub(r":410\d\d", f":{port}", block, count=1)


def test_a_committee_of_an_even_number_is_refused(files: InstanceFiles) -> None:
    text = files.compose().decode()
    fourth = _renamed(_blocks(text, "server")[0], "s3", 42_000)
    with pytest.raises(ConfigError, match="this one has 4"):
        parse_descriptor((text + "\n" + fourth).encode())


def test_two_nodes_with_one_identity_are_refused_whatever_their_kind(files: InstanceFiles) -> None:
    text = files.compose().decode()
    identities = re.findall(r'identity = "([^"]+)"', text)
    assert len(identities) == 5
    for twin in (1, 4):
        with pytest.raises(ConfigError, match="shares its identity"):
            parse_descriptor(text.replace(identities[twin], identities[0], 1).encode())


def test_a_circle_of_aggregators_leads_to_no_root(files: InstanceFiles) -> None:
    text = files.compose().decode()
    root, leaf = _blocks(text, "aggregator")
    circle = text.replace(root, root.rstrip() + '\nparent = "leaf"\n\n')
    assert circle != text
    with pytest.raises(ConfigError, match="root"):
        parse_descriptor(circle.encode())
    alone = text.replace(root, "").replace(leaf, "")
    with pytest.raises(ConfigError, match="aggregator"):
        parse_descriptor(alone.encode())


def test_rosters_are_those_the_descriptor_allows(files: InstanceFiles) -> None:
    text = files.compose()
    strict = _trust(sign_descriptor(text, files.operator))
    lax = _trust(
        sign_descriptor(text.replace(b"max_absent = 0", b"max_absent = 1"), files.operator)
    )
    zero, one, two, three = (ServerIndex(index) for index in range(4))
    assert (strict.required_signatures, lax.required_signatures) == (3, 2)
    strict.require_roster([zero, one, two])
    lax.require_roster([two, zero])
    for trusted, roster in (
        (strict, [zero, one]),
        (lax, [zero]),
        (lax, [zero, zero, one]),
        (lax, [zero, one, three]),
        (strict, []),
    ):
        with pytest.raises(VerificationError):
            trusted.require_roster(roster)


def test_nodes_are_found_by_peer_id_and_the_tree_by_name(
    files: InstanceFiles, signed: bytes
) -> None:
    trusted = _trust(signed)
    root, leaf = files.aggregators
    assert trusted.server_index(files.servers[2].peer_id) == 2
    assert trusted.server_index(root.peer_id) is None
    found = trusted.aggregator(leaf.peer_id)
    assert found is not None
    assert (found.node.name, found.parent) == ("leaf", "root")
    assert trusted.aggregator(files.servers[0].peer_id) is None
    assert [entry.node.name for entry in trusted.children("root")] == ["leaf"]
    assert (trusted.aggregator_height("root"), trusted.aggregator_height("leaf")) == (1, 0)
    assert trusted.committee_keys[0] == files.servers[0].public.ed25519
