"""Anonymous broadcast: an any-trust DC-net whose rounds end in a record anyone can verify.

What programs use is exported here, and imported on first use: ``import zipnet`` stays light::

    import zipnet

    descriptor = zipnet.load_descriptor("acme.toml", operator="zp1…")
    async with zipnet.Publisher(descriptor) as publisher:
        receipt = await publisher.publish(b"hello")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipnet.sdk import (
        AnonymityWarning,
        Bookmark,
        Channel,
        ConfigError,
        Cover,
        EquivocationError,
        LocalProtocolError,
        Message,
        MessageLost,
        NotSent,
        Outbox,
        Placement,
        Progress,
        Publisher,
        PublisherConditions,
        PublishError,
        Reader,
        Receipt,
        Received,
        Refused,
        RoundProfile,
        RoundsSkipped,
        TransportError,
        TrustPolicy,
        TrustPolicyError,
        Unknown,
        VerificationError,
        VoidSlot,
        ZipnetError,
        always,
        archival,
        custom,
        every,
        interactive,
        load_descriptor,
        load_token,
        read_records,
        sync,
        verify_equivocation,
        verify_proof,
        window,
    )

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


if not TYPE_CHECKING:  # type checkers use the imports above, and so still see misspelt names

    def __getattr__(name: str) -> object:
        """Import an exported name from the SDK on first use (PEP 562).

        Raises:
            AttributeError: When no such name is exported.
        """
        if name not in __all__:
            raise AttributeError(f"module 'zipnet' has no attribute {name!r}")
        import zipnet.sdk

        value: object = getattr(zipnet.sdk, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the exported names without importing them."""
    return sorted(__all__)
