"""Verify TDX quotes: pure, offline, at a time the caller names."""

from tdx.verify.memo import Memo
from tdx.verify.memory import Marks, PlatformRegister, RollbackMemory
from tdx.verify.second import verify_twice
from tdx.verify.verdict import Verdict
from tdx.verify.verify import verify

__all__ = [
    "Marks",
    "Memo",
    "PlatformRegister",
    "RollbackMemory",
    "Verdict",
    "verify",
    "verify_twice",
]
