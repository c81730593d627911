"""Refusals: one table of codes, what each is on HTTP, and what a caller is told (row A5).

Rules:

1. A refusal has a stable ``code``, one fixed line of text and maybe ``retry_after`` in seconds. The
   text is the table's, so it cannot tell anything about the node's state.
2. Frames carry the code (:class:`zipnet.wire.handshake.Refusal`); HTTP carries it in the body
   beside the status, with ``Retry-After`` where waiting helps.
3. A code that is not in the table is somebody's own refusal; over HTTP it is 403.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zipnet.errors import AdmissionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUTH_CODES", "REFUSALS", "RefusalTerms", "refusal", "retry_after_of", "status_of"]


@dataclass(frozen=True, slots=True)
class RefusalTerms:
    """What a code stands for.

    Attributes:
        status: HTTP status.
        text: What a caller is told, word for word.
        retry_s: Seconds after which asking again may help, unless the refusal says others.
    """

    status: int
    text: str
    retry_s: float | None = None


REFUSALS: Final[Mapping[str, RefusalTerms]] = MappingProxyType(
    {
        # who
        "unauthenticated": RefusalTerms(401, "this caller is not known here"),
        "revoked": RefusalTerms(403, "this peer was revoked"),
        "capability_missing": RefusalTerms(401, "this needs a capability"),
        "capability_expired": RefusalTerms(401, "the capability has expired"),
        "capability_revoked": RefusalTerms(403, "the capability was revoked"),
        "capability_role": RefusalTerms(403, "the capability does not grant this"),
        # what
        "not_allowed": RefusalTerms(403, "this request is not served to this caller"),
        "not_served": RefusalTerms(404, "there is nothing of that name here"),
        "method": RefusalTerms(405, "that cannot be done here"),
        "host": RefusalTerms(421, "this port does not answer to that name"),
        # how much
        "unknown_field": RefusalTerms(400, "this request has a field that is not known here"),
        "too_large": RefusalTerms(413, "that is more than one request may hold"),
        "rate_limited": RefusalTerms(429, "too many requests from this caller", 1.0),
        "prefix_limited": RefusalTerms(429, "too many requests from this network", 1.0),
        "too_many_handshakes": RefusalTerms(429, "too many handshakes from this network", 1.0),
        "overloaded": RefusalTerms(503, "too many requests at once", 0.5),
        "shed": RefusalTerms(503, "this node serves what matters more at the moment", 2.0),
        "timeout": RefusalTerms(503, "the request took too long", 1.0),
        "breaker_open": RefusalTerms(503, "what this depends on does not answer", 1.0),
        "upstream": RefusalTerms(502, "what this depends on gave a wrong answer"),
    }
)
"""Code → its terms."""

AUTH_CODES: Final = frozenset(
    {
        "bad_committee_proof",
        "bad_proof",
        "identity_mismatch",
        "not_registered",
        "revoked",
        "unauthenticated",
    }
)
"""Codes, besides those that begin with ``capability_``, of callers who are not who they must be."""

_FORBIDDEN: Final = 403


def refusal(code: str, *, retry_after: float | None = None) -> AdmissionError:
    """Return the refusal of a code of the table.

    Args:
        code: One of :data:`REFUSALS`.
        retry_after: Seconds, where they are known better than the table does.
    """
    terms = REFUSALS[code]
    wait_s = terms.retry_s if retry_after is None else retry_after
    return AdmissionError(terms.text, code=code, retry_after=wait_s)


def status_of(code: str) -> int:
    """Return the HTTP status of a code."""
    terms = REFUSALS.get(code)
    return _FORBIDDEN if terms is None else terms.status


def retry_after_of(error: AdmissionError) -> str | None:
    """Return the value of ``Retry-After`` in whole seconds; None where waiting does not help."""
    return None if error.retry_after is None else str(max(1, ceil(error.retry_after)))
