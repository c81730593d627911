"""The bounds that every link keeps, whichever transport carries it.

All limits are local: each side enforces its own on what it receives and on what it sends, so a
peer with other settings can at worst be refused. The defaults hold the largest round body of a
group (below 1 MiB) in one frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from zipnet.errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "MAX_FRAME_BYTES", "Limits"]

MAX_FRAME_BYTES = 1024 * 1024
"""Largest payload of one frame, in bytes, that any node may be configured to accept by default."""

_MIN_FRAME_BYTES = 8 * 1024
"""A handshake message carries two hybrid signatures' worth of bytes; smaller caps cannot work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one transport and of the sessions over it.

    Two knobs are separate on purpose: ``max_frame_bytes`` is what a frame may hold,
    ``chunk_bytes`` is how much of it is handed to the engine at a time.

    Attributes:
        max_frame_bytes: Largest payload of one frame in bytes, header not counted.
        chunk_bytes: Largest piece read from or written to the engine at once, in bytes.
        handshake_deadline_s: Time for transport handshake, and again for HELLO, in seconds.
        request_deadline_s: Time for the answer to a request unless the caller says otherwise.
        send_deadline_s: Time one frame may take to leave; then the link is given up.
        min_bytes_per_s: Slowest a frame may arrive once it has taken ``slow_grace_s``.
        slow_grace_s: Time a frame may take to arrive whatever its size.
        idle_timeout_s: Silence after which a link is given up; sessions ping at a third of it.
        close_deadline_s: Time ``close`` may spend on flushing before it cuts the link.
        max_in_flight: Requests open at once on one connection, in either direction.
        max_in_flight_bytes: Payload bytes of the peer's open requests on one connection.
        max_queued_frames: Pushes waiting for their handler on one connection.
        max_queued_bytes: Bytes received and not yet consumed, or written and not yet taken by
            the network, on one connection and direction.
        max_connections: Connections one listener holds at once, handshakes included.
    """

    max_frame_bytes: int = MAX_FRAME_BYTES
    chunk_bytes: int = 64 * 1024
    handshake_deadline_s: float = 5.0
    request_deadline_s: float = 5.0
    send_deadline_s: float = 30.0
    min_bytes_per_s: int = 4096
    slow_grace_s: float = 5.0
    idle_timeout_s: float = 20.0
    close_deadline_s: float = 2.0
    max_in_flight: int = 512
    max_in_flight_bytes: int = 16 * 1024 * 1024
    max_queued_frames: int = 256
    max_queued_bytes: int = 1024 * 1024
    max_connections: int = 4096

    def __post_init__(self) -> None:
        """Refuse values no link could work with.

        Raises:
            ConfigError: When a limit is not positive or too small to carry a handshake.
        """
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ConfigError(f"limit {field.name} must be positive")
        if self.max_frame_bytes < _MIN_FRAME_BYTES or self.max_frame_bytes >= 1 << 32:
            raise ConfigError(
                f"limit max_frame_bytes must be from {_MIN_FRAME_BYTES} to {(1 << 32) - 1}"
            )
        if self.max_queued_bytes < self.chunk_bytes:
            raise ConfigError("limit max_queued_bytes must hold at least one chunk_bytes")


DEFAULT_LIMITS = Limits()
