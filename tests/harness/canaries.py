"""Look for secrets in what programs say, in every form they could have taken."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["find_secrets", "find_text", "forms_of"]

_PART = 16
_HEX = re.compile(rb"[0-9a-fA-F]{20,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{18,}")


def forms_of(secret: bytes) -> dict[str, set[bytes]]:
    """Return how 16 bytes of a secret may look: by alphabet, so that each is sought in its own."""
    in_base64: set[bytes] = set()
    for shift in range(3):
        # Inside a longer text, the characters that depend on the neighbours are left away.
        encoded = base64.b64encode(bytes(shift) + secret)
        first, last = -(-shift * 8 // 6), (shift + len(secret)) * 8 // 6
        inner = encoded[first:last]
        in_base64 |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    in_hex = {secret.hex().encode()}
    plain = {secret, repr(secret)[2:-1].encode(), repr(list(secret))[1:-1].encode()}
    return {"hex": in_hex, "base64": in_base64, "plain": plain}


def find_secrets(secrets: Iterable[bytes], outputs: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Return where halves of secrets show: the output's name and the form."""
    hexes = {name: b" ".join({*_HEX.findall(data)}).lower() for name, data in outputs.items()}
    words = {name: b" ".join({*_BASE64.findall(data)}) for name, data in outputs.items()}
    found: set[tuple[str, str]] = set()
    for secret in secrets:
        for start in range(0, len(secret) - _PART + 1, _PART):
            forms = forms_of(secret[start : start + _PART])
            for kind, pages in (("hex", hexes), ("base64", words), ("plain", outputs)):
                found |= {
                    (name, kind)
                    for name, page in pages.items()
                    if any(form in page for form in forms[kind])
                }
    return found


def find_text(text: str, outputs: Mapping[str, bytes]) -> set[str]:
    """Return the outputs a text shows in, plainly or as hexadecimal or base64."""
    data = text.encode()
    forms = {data, data.hex().encode(), *forms_of(data)["base64"]}
    return {name for name, page in outputs.items() if any(form in page for form in forms)}
