"""The frame header, byte by byte, and what a decoder refuses before it buffers anything."""

from __future__ import annotations

import pytest

from zipnet.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from zipnet.wire.frames import (
    FRAME_HEADER_BYTES,
    CloseCode,
    Frame,
    FrameDecoder,
    SessionKind,
    decode_close,
    encode_close,
    encode_frame,
    encode_frame_header,
)
from zipnet.wire.limits import Limits

LIMITS = Limits(max_frame_bytes=8192, chunk_bytes=1024, max_queued_bytes=8192)


def test_the_header_is_laid_out_as_documented() -> None:
    frame = Frame(0x0102, 0x03040506, b"payload", response=True)
    assert encode_frame(frame) == bytes.fromhex("01 01 0102 03040506 00000007") + b"payload"
    push = Frame(26, 0, b"")
    assert encode_frame(push) == bytes.fromhex("01 00 001a 00000000 00000000")


def test_repr_shows_no_payload() -> None:
    assert "secret" not in repr(Frame(20, 1, b"secret"))


def test_an_answer_carries_the_number_of_its_request() -> None:
    assert Frame(20, 7, b"q").answer(21, b"a") == Frame(21, 7, b"a", response=True)


UNSENDABLE = {
    "kind 0": Frame(0, 1, b""),
    "kind too large": Frame(0x10000, 1, b""),
    "negative request id": Frame(20, -1, b""),
    "request id too large": Frame(20, 1 << 32, b""),
    "response to nothing": Frame(20, 0, b"", response=True),
    "payload above the cap": Frame(20, 1, bytes(8193)),
}


@pytest.mark.parametrize("frame", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_the_far_side_would_refuse_is_not_sent(frame: Frame) -> None:
    with pytest.raises(LocalProtocolError):
        encode_frame_header(frame, LIMITS)


REFUSED = {
    "version 0": ("00 00 0014 00000001 00000000", CloseCode.FRAME_VERSION),
    "version 2": ("02 00 0014 00000001 00000000", CloseCode.FRAME_VERSION),
    "unknown flag": ("01 02 0014 00000001 00000000", CloseCode.FRAME_FLAGS),
    "all flags": ("01 ff 0014 00000001 00000000", CloseCode.FRAME_FLAGS),
    "response to a push": ("01 01 0014 00000000 00000000", CloseCode.FRAME_FLAGS),
    "kind 0": ("01 00 0000 00000001 00000000", CloseCode.FRAME_KIND),
    "one byte above the cap": ("01 00 0014 00000001 00002001", CloseCode.FRAME_TOO_LARGE),
    "4 GiB": ("01 00 0014 00000001 ffffffff", CloseCode.FRAME_TOO_LARGE),
}


@pytest.mark.parametrize(("header", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_header_is_refused_before_any_payload_is_buffered(
    header: str, code: CloseCode
) -> None:
    decoder = FrameDecoder(LIMITS)
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.feed(bytes.fromhex(header) + bytes(4096))
    assert caught.value.code == code
    assert decoder.buffered_bytes == 0
    with pytest.raises(RemoteProtocolError) as again:
        decoder.feed(encode_frame(Frame(20, 1, b"good")))
    assert again.value.code == code


def test_frames_before_the_bad_byte_are_delivered_however_the_stream_is_cut() -> None:
    good = Frame(20, 1, b"good")
    decoder = FrameDecoder(LIMITS)
    assert decoder.feed(encode_frame(good) + b"\x07" + bytes(40)) == [good]
    with pytest.raises(RemoteProtocolError):
        decoder.feed(b"")


def test_the_cap_itself_is_taken_and_the_decoder_holds_one_frame_at_most() -> None:
    decoder = FrameDecoder(LIMITS)
    raw = encode_frame(Frame(20, 1, bytes(8192)), LIMITS)
    assert decoder.feed(raw[:-1]) == []
    assert decoder.mid_frame
    assert decoder.buffered_bytes == 8191
    assert decoder.feed(raw[-1:] + raw[:FRAME_HEADER_BYTES]) == [Frame(20, 1, bytes(8192))]
    assert decoder.buffered_bytes == 0


def test_session_kinds_stay_below_the_messages_kinds() -> None:
    assert max(SessionKind) <= 15


def test_close_frames_come_back_as_printable_words() -> None:
    assert decode_close(encode_close(5, "too large")) == (5, "too large")
    assert decode_close(encode_close(70_000, "x" * 500)) == (0xFFFF, "x" * 200)
    assert decode_close(b"\0\x01a\x1b[2Jb\n\xff") == (1, "a[2Jb�")
    for payload in (b"", b"\0", bytes(203)):
        with pytest.raises(RemoteProtocolError):
            decode_close(payload)


BAD_LIMITS = {
    "zero deadline": {"handshake_deadline_s": 0.0},
    "negative count": {"max_in_flight": -1},
    "frame cap below a handshake": {"max_frame_bytes": 4096},
    "frame cap that does not fit the header": {"max_frame_bytes": 1 << 32},
    "queue below a chunk": {"max_queued_bytes": 1024, "chunk_bytes": 2048},
}


@pytest.mark.parametrize("limits", BAD_LIMITS.values(), ids=BAD_LIMITS.keys())
def test_limits_no_link_could_work_with_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Limits(**limits)
