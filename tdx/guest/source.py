"""What a source of quotes owes its caller."""

from __future__ import annotations

import hmac
from typing import Protocol

from tdx.errors import GuestError, PolicyError, QuoteError
from tdx.quote import parse_quote

__all__ = ["REPORT_DATA_BYTES", "QuoteSource", "check_quoted", "check_report_data"]

REPORT_DATA_BYTES = 64


class QuoteSource(Protocol):
    """Produce quotes of this trust domain.

    Blocking: a quote takes milliseconds to seconds, so call it in a worker thread. Every quote has
    been parsed and carries the report data that was asked for.
    """

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over 64 bytes.

        Raises:
            GuestError: This machine cannot quote; ``may_retry`` says whether later may help.
            PolicyError: ``report_data`` has not 64 bytes.
        """
        ...


def check_report_data(report_data: bytes) -> None:
    """Refuse report data of another length than 64.

    Raises:
        PolicyError: The length differs.
    """
    if len(report_data) != REPORT_DATA_BYTES:
        raise PolicyError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(report_data)}")


def check_quoted(quote: bytes, report_data: bytes) -> bytes:
    """Return the quote if it parses and carries the report data.

    Raises:
        GuestError: The platform returned something else, perhaps another process's quote.
    """
    try:
        found = parse_quote(quote).report.report_data
    except QuoteError as error:
        raise GuestError(f"the platform returned no quote: {error}") from error
    if not hmac.compare_digest(found, report_data):
        raise GuestError("the platform quoted other report data than asked", retryable=True)
    return quote
