"""What programs use: publish anonymously, read what was broadcast, verify it all."""

from zipnet.errors import (
    AnonymityWarning,
    ConfigError,
    EquivocationError,
    LocalProtocolError,
    NotSent,
    PublishError,
    Refused,
    TransportError,
    TrustPolicyError,
    Unknown,
    VerificationError,
    ZipnetError,
)
from zipnet.machines.bookmark import Bookmark
from zipnet.machines.cover import Cover, always, every, window
from zipnet.machines.outgoing import Placement, Receipt
from zipnet.machines.reader import Message, MessageLost, RoundsSkipped, VoidSlot
from zipnet.machines.trust import TrustPolicy
from zipnet.sdk import sync
from zipnet.sdk.channel import Channel, Received
from zipnet.sdk.descriptor import load_descriptor
from zipnet.sdk.offline import read_records
from zipnet.sdk.outbox import Outbox
from zipnet.sdk.profiles import RoundProfile, archival, custom, interactive
from zipnet.sdk.proof import verify_equivocation, verify_proof
from zipnet.sdk.publisher import Publisher, PublisherConditions
from zipnet.sdk.reader import Reader
from zipnet.sdk.sending import Progress
from zipnet.sdk.token import load_token

__all__ = [
    "AnonymityWarning",
    "Bookmark",
    "Channel",
    "ConfigError",
    "Cover",
    "EquivocationError",
    "LocalProtocolError",
    "Message",
    "MessageLost",
    "NotSent",
    "Outbox",
    "Placement",
    "Progress",
    "PublishError",
    "Publisher",
    "PublisherConditions",
    "Reader",
    "Receipt",
    "Received",
    "Refused",
    "RoundProfile",
    "RoundsSkipped",
    "TransportError",
    "TrustPolicy",
    "TrustPolicyError",
    "Unknown",
    "VerificationError",
    "VoidSlot",
    "ZipnetError",
    "always",
    "archival",
    "custom",
    "every",
    "interactive",
    "load_descriptor",
    "load_token",
    "read_records",
    "sync",
    "verify_equivocation",
    "verify_proof",
    "window",
]
