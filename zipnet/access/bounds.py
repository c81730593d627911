"""Every bound of the wall, with its default (rows M4, H4, A7)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import Final

from zipnet.errors import ConfigError

__all__ = ["DEFAULT_BOUNDS", "WallBounds"]

_MIN_BODY_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class WallBounds:
    """What a node lets a caller have.

    The defaults let a committee of seven and 4,096 clients behind one address work; what they cost
    at that size is in ``docs/wall.md``.

    Attributes:
        request_s: Time for one request, in seconds.
        in_flight: Requests open at once on one link, and on one HTTP port.
        requests_per_s: Requests per second of one principal; it may save up one second's.
        committee_per_s: The same of a committee server, which proved the committee's secret.
        prefix_per_s: Requests per second of one network prefix.
        prefix_burst: Requests one prefix may save up.
        reserve_per_s: Requests per second of a principal that proved an identity which are not
            counted against its prefix, so that neighbours cannot use up what taking part needs; it
            may save up four seconds' of them.
        body_bytes: Largest payload of a frame, and largest body of an HTTP request.
        chunk_bytes: How much of it is handed on at a time.
        handshakes: Handshakes in progress at once.
        handshakes_per_s: Handshakes per second of one prefix.
        handshake_burst: Handshakes one prefix may save up.
        first_bytes_s: Time until a connection has shaken hands, or sent its HTTP request.
        min_bytes_per_s: Slowest a frame may arrive, once ``slow_grace_s`` has passed.
        slow_grace_s: Seconds a frame may take whatever its size.
        idle_s: Silence after which a link is given up.
        sessions: Sessions of clients and readers at once.
        total_in_flight: Requests of the whole node in progress at once.
        total_bytes: Their payload bytes.
        principals: Principals counted apart at once.
    """

    request_s: float = 5.0
    in_flight: int = 512
    requests_per_s: float = 500.0
    committee_per_s: float = 5000.0
    prefix_per_s: float = 500.0
    prefix_burst: int = 1000
    reserve_per_s: float = 4.0
    body_bytes: int = 1024 * 1024
    chunk_bytes: int = 64 * 1024
    handshakes: int = 64
    handshakes_per_s: float = 100.0
    handshake_burst: int = 1024
    first_bytes_s: float = 5.0
    min_bytes_per_s: int = 4096
    slow_grace_s: float = 5.0
    idle_s: float = 20.0
    sessions: int = 4096
    total_in_flight: int = 16384
    total_bytes: int = 256 * 1024 * 1024
    principals: int = 65536

    def __post_init__(self) -> None:
        """Refuse bounds nobody could keep.

        Raises:
            ConfigError: When a bound is not positive, or a body could not hold a handshake.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not isfinite(value) or value <= 0:
                raise ConfigError(f"limit {field.name} must be positive")
        if self.body_bytes < _MIN_BODY_BYTES:
            raise ConfigError(f"limit body_bytes must be at least {_MIN_BODY_BYTES}")
        if self.chunk_bytes > self.body_bytes:
            raise ConfigError("limit chunk_bytes must not be above body_bytes")


DEFAULT_BOUNDS: Final = WallBounds()
