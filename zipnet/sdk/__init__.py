"""What programs use: publish anonymously, read what was broadcast, verify it all."""

from zipnet.machines.outgoing import Placement, Receipt
from zipnet.machines.reader import Message, MessageLost, VoidSlot
from zipnet.sdk.descriptor import load_descriptor
from zipnet.sdk.offline import read_records
from zipnet.sdk.publisher import Publisher, PublisherConditions
from zipnet.sdk.reader import Reader

__all__ = [
    "Message",
    "MessageLost",
    "Placement",
    "Publisher",
    "PublisherConditions",
    "Reader",
    "Receipt",
    "VoidSlot",
    "load_descriptor",
    "read_records",
]
