"""Any bytes end in frames or in RemoteProtocolError, however they are cut."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_frames import LIMITS, decode_payload, one_input
from zipnet.errors import RemoteProtocolError
from zipnet.wire.frames import Frame, FrameDecoder, SessionKind, encode_frame

CORPUS = Path(__file__).parent / "corpus" / "frames"
ROOT = Path(__file__).parents[2]

frames = st.builds(
    Frame, st.integers(1, 0xFFFF), st.integers(1, 0xFFFFFFFF), st.binary(max_size=300)
) | st.builds(
    lambda kind, number, payload: Frame(kind, number, payload, response=True),
    st.integers(1, 0xFFFF),
    st.integers(1, 0xFFFFFFFF),
    st.binary(max_size=300),
)
streams = st.builds(
    lambda good, tail: b"".join(encode_frame(frame) for frame in good) + tail,
    st.lists(frames, max_size=4),
    st.binary(max_size=64),
)


def outcome(pieces: list[bytes]) -> tuple[list[Frame], int | None]:
    """All frames a stream yields and the code it ends with, fed piece by piece."""
    decoder = FrameDecoder(LIMITS)
    taken: list[Frame] = []
    try:
        for piece in [*pieces, b""]:
            taken.extend(decoder.feed(piece))
    except RemoteProtocolError as error:
        return taken, error.code
    assert decoder.buffered_bytes <= LIMITS.max_frame_bytes + 12
    return taken, None


@given(st.lists(frames, max_size=6))
def test_what_was_encoded_is_decoded(sent: list[Frame]) -> None:
    assert outcome([b"".join(encode_frame(frame) for frame in sent)]) == (sent, None)


@given(streams | st.binary(max_size=200))
def test_the_outcome_is_the_same_whole_and_byte_by_byte(stream: bytes) -> None:
    assert outcome([stream]) == outcome([bytes([byte]) for byte in stream])


@given(streams, st.lists(st.integers(0, 1500), max_size=5))
def test_the_outcome_does_not_depend_on_where_the_stream_is_cut(
    stream: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert outcome(pieces) == outcome([stream])


@given(st.sampled_from(list(SessionKind)), st.binary(max_size=400))
def test_any_session_payload_ends_in_a_value_or_a_protocol_error(
    kind: SessionKind, payload: bytes
) -> None:
    try:
        decode_payload(kind, payload)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize("seed", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_passes(seed: Path) -> None:
    one_input(seed.read_bytes())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_short_coverage_guided_run_finds_nothing(tmp_path: Path) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.fuzz_frames",
            "-max_total_time=4",
            "-max_len=4096",
            "-seed=20261120",
            f"-artifact_prefix={tmp_path}/",
            str(tmp_path),
            str(CORPUS),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    print(found.stderr[-500:])
    assert found.returncode == 0, found.stderr[-2000:]
    assert not list(tmp_path.glob("crash-*"))
