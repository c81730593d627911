"""Coverage-guided fuzzing of everything a stranger can send before it is known.

``python -m tests.fuzz.fuzz_frames [libFuzzer options] [corpus]`` runs until it finds something;
``tests/fuzz/test_frames_fuzz.py`` runs it briefly with the suite.
"""

from __future__ import annotations

import sys
from typing import Final

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["zipnet.wire"]):
        import zipnet.wire.handshake  # noqa: F401 - what is imported below reports its branches

from zipnet.errors import RemoteProtocolError
from zipnet.wire.frames import FrameDecoder, SessionKind, decode_close
from zipnet.wire.handshake import (
    Hello,
    HelloReply,
    Proof,
    Refusal,
    Welcome,
    decode_handshake,
    refusal_to_error,
)
from zipnet.wire.limits import Limits

LIMITS: Final = Limits(max_frame_bytes=16 * 1024)


def decode_stream(data: bytes) -> None:
    """Take bytes as a peer's stream; ends normally or in RemoteProtocolError."""
    decoder = FrameDecoder(LIMITS)
    for frame in decoder.feed(data):
        decode_payload(frame.kind, frame.payload)
    assert decoder.buffered_bytes <= LIMITS.max_frame_bytes + 12
    decoder.feed(b"")


def decode_payload(kind: int, payload: bytes) -> None:
    """Parse a payload as the session layer would."""
    match kind:
        case SessionKind.CLOSE:
            decode_close(payload)
        case SessionKind.REFUSAL:
            refusal_to_error(decode_handshake(payload, Refusal))
        case SessionKind.HELLO:
            decode_handshake(payload, Hello)
        case SessionKind.HELLO_REPLY:
            decode_handshake(payload, HelloReply)
        case SessionKind.PROOF:
            decode_handshake(payload, Proof)
        case SessionKind.WELCOME:
            decode_handshake(payload, Welcome)
        case _:
            pass


def one_input(data: bytes) -> None:
    """Fuzz target: anything but RemoteProtocolError is a finding."""
    try:
        decode_stream(data)
    except RemoteProtocolError:
        return


def main() -> None:
    """Run the fuzzer with the command line's options."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
