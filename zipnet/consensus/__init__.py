"""Consensus engines behind the :class:`zipnet.ports.Consensus` port."""

from zipnet.consensus.embedded import COMMITTEE_SIZES, EmbeddedConsensus, EngineStatus
from zipnet.consensus.messages import MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES
from zipnet.consensus.raft import Timing

__all__ = [
    "COMMITTEE_SIZES",
    "MAX_COMMAND_BYTES",
    "MAX_MESSAGE_BYTES",
    "EmbeddedConsensus",
    "EngineStatus",
    "Timing",
]
