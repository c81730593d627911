"""Read JSON, hex, dates and PEM in exactly one way, or refuse.

Python's parser takes the last of two equal keys, NaN, fractions and any depth its stack allows; a
document that two verifiers read differently is how forged collateral gets through, so none of these
pass here.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Sequence
from datetime import datetime

from tdx.errors import Check, QuoteError

__all__ = ["Fields", "load_object", "split_pem"]

_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_PEM = re.compile(
    rb"[ \t\r\n]*-----BEGIN CERTIFICATE-----\r?\n"
    rb"([^-]+)-----END CERTIFICATE-----[ \t\r\n]*"
)


def load_object(text: str | bytes, check: Check) -> Fields:
    """Parse a JSON object; repeated keys, fractions, NaN and excess depth are refused.

    Args:
        text: The document; the caller has capped its size.
        check: The check that fails if the text is not such an object.

    Raises:
        QuoteError: ``check``.
    """
    refuse = _Refusal(check)
    try:
        value = json.loads(
            text if isinstance(text, str) else text.decode(),
            object_pairs_hook=refuse.repeated,
            parse_float=refuse.fraction,
            parse_constant=refuse.fraction,
        )
    except (ValueError, RecursionError) as error:
        raise QuoteError(check, "the document is JSON", value=type(error).__name__) from error
    return Fields(value, check, "document")


class _Refusal:
    def __init__(self, check: Check) -> None:
        self._check = check

    def repeated(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise QuoteError(self._check, "no key appears twice in an object")
        return found

    def fraction(self, text: str) -> object:
        raise QuoteError(self._check, "numbers are integers", value=text)


class Fields:
    """Take typed fields out of a JSON object, each refusal naming the field.

    Args:
        value: What the parser returned.
        check: The check that fails.
        where: What the object is, for the message.
    """

    __slots__ = ("_check", "_values", "_where")

    def __init__(self, value: object, check: Check, where: str) -> None:
        if not isinstance(value, dict):
            raise QuoteError(check, f"{where} is an object")
        self._values: dict[str, object] = value
        self._check = check
        self._where = where

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._values

    def text(self, name: str) -> str:
        """Return a string field."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._refuse(name, "a string")
        # A lone surrogate is legal JSON and no text: it could not be hashed or shown later.
        if not value.isascii():
            raise self._refuse(name, "ASCII")
        return value

    def number(self, name: str, maximum: int) -> int:
        """Return an integer field from 0 to ``maximum``."""
        value = self._values.get(name)
        if type(value) is not int or not 0 <= value <= maximum:
            raise self._refuse(name, f"an integer from 0 to {maximum}")
        return value

    def hexadecimal(self, name: str, size: int) -> bytes:
        """Return a field of exactly ``size`` bytes written in hexadecimal digits."""
        text = self.text(name)
        try:
            value = binascii.unhexlify(text)
        except ValueError:
            raise self._refuse(name, "hexadecimal") from None
        if len(value) != size:
            raise self._refuse(name, f"{size} bytes")
        return value

    def instant(self, name: str) -> int:
        """Return an ISO 8601 UTC field, to the second, as Unix seconds."""
        text = self.text(name)
        try:
            if not _DATE.fullmatch(text):
                raise ValueError
            return int(datetime.fromisoformat(text).timestamp())
        except ValueError:
            raise self._refuse(name, "a UTC date to the second") from None

    def items(self, name: str, *, length: int | None = None) -> Sequence[object]:
        """Return a list field, of exactly ``length`` elements if given."""
        value = self._values.get(name)
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise self._refuse(name, "a list" if length is None else f"a list of {length}")
        return value

    def inside(self, name: str) -> Fields:
        """Return an object field."""
        return Fields(self._values.get(name), self._check, f"{self._where}.{name}")

    def each(self, name: str) -> list[Fields]:
        """Return a list field whose elements are objects."""
        return [Fields(item, self._check, f"{self._where}.{name}[]") for item in self.items(name)]

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; an absent field is an empty one."""
        if name not in self._values:
            return ()
        values = self.items(name)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise self._refuse(name, "a list of strings")
        return texts

    def _refuse(self, name: str, what: str) -> QuoteError:
        return QuoteError(self._check, f"{self._where}.{name} is {what}")


def split_pem(pem: bytes, check: Check) -> list[bytes]:
    """Split concatenated PEM certificates into DER; only white space and NULs may surround them.

    Args:
        pem: PEM text, perhaps ended by NUL bytes as quoting enclaves write it.
        check: The check that fails.

    Raises:
        QuoteError: ``check`` for anything else between, before or after the certificates.
    """
    text = pem.rstrip(b"\0")
    found: list[bytes] = []
    at = 0
    while at < len(text):
        match = _PEM.match(text, at)
        if match is None:
            raise QuoteError(check, "the chain is PEM certificates and nothing else")
        try:
            found.append(_canonical_base64(match[1]))
        except ValueError as error:
            raise QuoteError(check, "a PEM certificate is canonical base64") from error
        at = match.end()
    return found


def _canonical_base64(lines: bytes) -> bytes:
    text = lines.translate(None, b"\r\n")
    value = binascii.a2b_base64(text, strict_mode=True)
    # Left-over bits of the last character would let one certificate be written in many ways.
    if binascii.b2a_base64(value, newline=False) != text:
        raise ValueError
    return value
