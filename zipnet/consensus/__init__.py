"""Consensus engines behind the :class:`zipnet.ports.Consensus` port."""

import socket

# The library replaces these two functions of the socket module with a Windows shim on import,
# for the whole process; they are put back at once.
_pton, _ntop = socket.inet_pton, socket.inet_ntop
import pysyncobj as _pysyncobj  # noqa: E402, F401

socket.inet_pton, socket.inet_ntop = _pton, _ntop

from zipnet.consensus.embedded import COMMITTEE_SIZES, EmbeddedConsensus, EngineStatus  # noqa: E402
from zipnet.consensus.messages import MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES  # noqa: E402
from zipnet.consensus.timing import Timing  # noqa: E402

__all__ = [
    "COMMITTEE_SIZES",
    "MAX_COMMAND_BYTES",
    "MAX_MESSAGE_BYTES",
    "EmbeddedConsensus",
    "EngineStatus",
    "Timing",
]
