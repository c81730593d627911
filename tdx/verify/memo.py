"""A memo of what was read: the same issuer certificates and documents come with every quote.

It holds what pure functions made of exact bytes, never a verdict: whoever is given a memo checks
every signature, date, name, revocation and policy again. Its owner is the caller; without one, a
verification has its own and drops it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from tdx.collateral import parse_qe_identity, parse_tcb_info, split_pem
from tdx.errors import Check, PolicyError
from tdx.verify.certificates import read_certificate
from tdx.verify.revocation import ListForm, read_list

__all__ = ["Memo"]

_MAX_BYTES = 64 * 1024

K = TypeVar("K", bound=bytes | str)
V = TypeVar("V")


class Memo:
    """Keep what was read of the last certificates, lists and documents, by their exact bytes.

    A memo may outlive roots, times and policies, because it knows none of them, and may be shared
    by threads.

    Args:
        limit: How many of each sort are kept, of at most 64 KiB each; the longest unused goes.

    Raises:
        PolicyError: The limit is not positive.
    """

    def __init__(self, limit: int = 32) -> None:
        if limit < 1:
            raise PolicyError("a memo keeps at least one of each sort")
        self.chain = _Kept(_split, limit)
        self.certificate = _Kept(read_certificate, limit)
        self.root_crl = _Kept(_read_root_crl, limit)
        self.pck_crl = _Kept(_read_pck_crl, limit)
        self.tcb_info = _Kept(parse_tcb_info, limit)
        self.qe_identity = _Kept(parse_qe_identity, limit)


class _Kept(Generic[K, V]):
    def __init__(self, read: Callable[[K], V], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._kept: OrderedDict[K, V] = OrderedDict()

    def __call__(self, data: K) -> V:
        # Each step is one operation on the dictionary: what threads may lose here is time alone.
        value = self._kept.pop(data, None)
        if value is None:
            value = self._read(data)
        if len(data) <= _MAX_BYTES:
            self._kept[data] = value
            if len(self._kept) > self._limit:
                with suppress(KeyError):
                    self._kept.popitem(last=False)
        return value

    def __contains__(self, data: K) -> bool:
        return data in self._kept

    def __len__(self) -> int:
        return len(self._kept)


def _split(pem: bytes) -> tuple[bytes, ...]:
    return tuple(split_pem(pem, Check.CHAIN_SHAPE))


def _read_root_crl(der: bytes) -> ListForm:
    return read_list(der, Check.ROOT_CRL)


def _read_pck_crl(der: bytes) -> ListForm:
    return read_list(der, Check.PCK_CRL)
