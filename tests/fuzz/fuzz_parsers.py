"""Coverage-guided fuzzing of every parser of the protocol: blobs, commands, records, messages.

``python -m tests.fuzz.fuzz_parsers [libFuzzer options] [corpus]`` runs until it finds something;
``tests/fuzz/test_parsers_fuzz.py`` runs it briefly with the suite. The first byte of an input
picks the parser, the rest is what it parses.
"""

from __future__ import annotations

import sys
from typing import Final

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["zipnet.protocol", "zipnet.wire"]):
        import zipnet.protocol.descriptor
        import zipnet.protocol.record
        import zipnet.wire.messages  # noqa: F401 - what is imported below reports its branches

from collections.abc import Callable

from tests.vectors.testkit import draw
from zipnet.errors import ConfigError, RemoteProtocolError, VerificationError
from zipnet.machines.guard import Released
from zipnet.protocol.aggregate import decode_aggregate, decode_partial
from zipnet.protocol.command import open_command
from zipnet.protocol.descriptor import parse_descriptor
from zipnet.protocol.header import RoundHeader, SignedHeader
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import GroupId
from zipnet.protocol.params import RoundParams
from zipnet.protocol.participants import Participants
from zipnet.protocol.record import decode_record
from zipnet.protocol.registration import (
    RegistryChange,
    decode_announcement,
    decode_registration,
)
from zipnet.protocol.secret import Secret
from zipnet.wire import messages

# The group, keys and shape of the vectors, so that their files are a good corpus.
GROUP: Final = GroupId(draw("group", 32))
IDENTITY: Final = Identity.from_secret(Secret(draw("node", 32))).public
SMALL: Final = RoundParams(num_slots=3, slot_bytes=64)


def _message(kind: type[messages.Message]) -> Callable[[bytes], object]:
    return lambda data: messages.decode(data, kind)


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    "header": RoundHeader.decode,
    "signed header": SignedHeader.decode,
    "participants": Participants.decode,
    "aggregate": lambda data: decode_aggregate(data, SMALL),
    "partial": lambda data: decode_partial(data, SMALL),
    "announcement": lambda data: decode_announcement(data, GROUP, [IDENTITY] * 3),
    "registration": lambda data: decode_registration(data, GROUP, 3),
    "registry change": RegistryChange.decode,
    "command": lambda data: open_command(data, GROUP, [IDENTITY.ed25519] * 3),
    "record": lambda data: decode_record(data, SMALL),
    "release": Released.decode,
    "descriptor": parse_descriptor,
    **{f"message {kind.__name__}": _message(kind) for kind in messages._DECODERS},
}
_LIST: Final = list(PARSERS.values())


def one_input(data: bytes) -> None:
    """Fuzz target: anything but the three errors of outside bytes is a finding."""
    if not data:
        return
    try:
        _LIST[data[0] % len(_LIST)](data[1:])
    except (RemoteProtocolError, VerificationError, ConfigError):
        return


def main() -> None:
    """Run the fuzzer with the command line's options."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
