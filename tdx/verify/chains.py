"""Chains of fixed length that end in the pinned root, all of one organisation."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from tdx.errors import Check, QuoteError
from tdx.trust import EMULATED_ORGANIZATION, TrustRoot

if TYPE_CHECKING:
    from tdx.verify.certificates import Certificate
    from tdx.verify.memo import Memo

__all__ = ["Pool"]


class Pool:
    """Read chains under one pinned root.

    Args:
        root: The root that every chain must end in.
        memo: What was read before.
    """

    def __init__(self, root: TrustRoot, memo: Memo) -> None:
        self._root = root
        self._memo = memo

    def chain(self, pem: bytes, length: int, what: str) -> list[Certificate]:
        """Read a chain of exactly ``length`` certificates, end entity first, pinned root last.

        Raises:
            QuoteError: ``chain_shape``, ``root_pin``, ``certificate_format``,
                ``certificate_name`` or ``emulated_marker``.
        """
        ders = self._memo.chain(pem)
        if len(ders) != length:
            raise QuoteError(
                Check.CHAIN_SHAPE, f"the {what} has {length} certificates", value=len(ders)
            )
        # The name of a root proves nothing: anybody can write Intel's into a certificate.
        found = sha256(ders[-1]).digest()
        if found != self._root.certificate_sha256:
            raise QuoteError(
                Check.ROOT_PIN, f"the {what} ends in the pinned root", value=found.hex()
            )
        return [self._certificate(der) for der in ders]

    def _certificate(self, der: bytes) -> Certificate:
        known = self._memo.certificate(der)
        if known.organization == self._root.organization:
            return known
        if known.organization == EMULATED_ORGANIZATION:
            raise QuoteError(
                Check.EMULATED_MARKER,
                "no certificate is an emulator's",
                value=EMULATED_ORGANIZATION,
            )
        raise QuoteError(
            Check.CERTIFICATE_NAME,
            f"the organisation is {self._root.organization}",
            value=known.organization,
        )
