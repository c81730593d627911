"""Secrets do not print, copy, pickle, hash or outlive their wiping."""

from __future__ import annotations

import copy
import pickle

import pytest

from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.secret import Secret, format_secret_text, parse_secret_text

DATA = bytes.fromhex("9f1c0a77c3d24e5b8a6f1102e4b7d93350ab6c8e21f4907dbe58c6130f9a74e2")


@pytest.mark.spec(8.5)
def test_neither_repr_nor_str_shows_the_bytes() -> None:
    secret = Secret(DATA)
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "32 bytes" in text
        assert DATA.hex()[:8] not in text
        assert repr(DATA)[2:10] not in text


def test_reveal_lends_a_view_that_ends_with_the_block() -> None:
    secret = Secret(DATA)
    with secret.reveal() as view:
        assert view == DATA
        assert view.readonly
    with pytest.raises(ValueError, match="released"):
        view.tobytes()


def test_wiping_overwrites_the_buffer_and_ends_all_use() -> None:
    secret = Secret(DATA)
    buffer = secret._data
    secret.close()
    assert buffer == bytes(32)
    assert secret.wiped
    with pytest.raises(LocalProtocolError), secret.reveal():
        pass
    with pytest.raises(LocalProtocolError):
        assert secret == Secret(bytes(32))
    secret.wipe()


def test_leaving_a_with_block_and_garbage_collection_wipe() -> None:
    with Secret(DATA) as secret:
        buffer = secret._data
    assert buffer == bytes(32)
    secret = Secret(DATA)
    buffer = secret._data
    del secret
    assert buffer == bytes(32)


def test_take_leaves_nothing_with_the_caller() -> None:
    data = bytearray(DATA)
    secret = Secret.take(data)
    assert data == bytes(32)
    assert secret == Secret(DATA)


def test_equality_is_of_contents_and_only_between_secrets() -> None:
    assert Secret(DATA) == Secret(DATA)
    assert Secret(DATA) != Secret(DATA[::-1])
    assert Secret(DATA) != Secret(DATA[:31])
    assert Secret(DATA) != DATA


def test_hashing_pickling_and_copying_are_refused() -> None:
    secret = Secret(DATA)
    with pytest.raises(TypeError):
        hash(secret)
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            act(secret)


def test_random_takes_exactly_what_the_source_gives() -> None:
    assert Secret.random(lambda size: DATA[:size], 16) == Secret(DATA[:16])
    with pytest.raises(LocalProtocolError, match="31 bytes"):
        Secret.random(lambda size: DATA[: size - 1])


@pytest.mark.spec(8.5)
def test_refusals_of_a_secret_text_name_its_shape_and_never_its_content() -> None:
    body = DATA.hex()
    for text in (body, "zipnet-secret-1:" + body[:-1], "zipnet-secret-1:" + "ab" * 32):
        with pytest.raises(ConfigError) as caught:
            parse_secret_text(text, what="ZIPNET_SECRET")
        error = caught.value
        assert "ZIPNET_SECRET" in str(error)
        assert "keygen" in (error.hint or "")
        for part in (body[:8], body[-8:], "abab"):
            assert part not in error.message_line
        assert error.__cause__ is None


def test_text_round_trip_allows_one_newline() -> None:
    text = format_secret_text(Secret(DATA))
    for ending in ("", "\n", "\r\n"):
        assert parse_secret_text(text + ending, what="x") == Secret(DATA)
    with pytest.raises(ConfigError):
        parse_secret_text(text + "\n\n", what="x")
    with pytest.raises(LocalProtocolError):
        format_secret_text(Secret(DATA[:16]))
