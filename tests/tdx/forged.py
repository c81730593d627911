"""One emulator for the tests, honest material from it, and how both verifiers judge."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tdx.emulator import Emulator
from tdx.policy import Policy
from tdx.verify import Memo, Verdict, verify

if TYPE_CHECKING:
    from tdx.collateral import Bundle
    from tdx.trust import TrustRoot

NOW = 1_790_000_000
POLICY = Policy(allow_emulated=True)
REPORT_DATA = bytes(range(64))


@cache
def emulator() -> Emulator:
    """One platform under one authority, valid around ``NOW``."""
    return Emulator(now=NOW)


@cache
def honest_quote(version: int = 4) -> bytes:
    """An honest quote over ``REPORT_DATA``."""
    return emulator().quote(REPORT_DATA, version=version)


def judge(
    quote: bytes,
    bundle: Bundle | None = None,
    *,
    root: TrustRoot | None = None,
    now: int = NOW,
    policy: Policy = POLICY,
    report_data: bytes | None = None,
    memo: Memo | None = None,
) -> Verdict:
    """Verify under the emulator's root unless told otherwise."""
    return verify(
        quote,
        bundle or emulator().bundle(),
        root=root or emulator().trust_root,
        now=now,
        policy=policy,
        report_data=report_data,
        memo=memo,
    )


def oracle() -> ModuleType:
    """The second verifier; skips the calling test, saying so, where it is absent."""
    module: ModuleType = pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed")
    return module


def oracle_status(quote: bytes, bundle: Bundle, root_der: bytes, now: int = NOW) -> str | None:
    """The status the second verifier reaches under a root, or None if it refuses."""
    module = oracle()
    try:
        collateral = module.QuoteCollateralV3.from_json(bundle.to_json())
        return str(module.verify_with_root_ca(quote, collateral, root_der, now).status)
    except ValueError:
        return None
