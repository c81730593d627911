"""Which tests are left to ``make faults``: real processes, minutes in all."""

from __future__ import annotations

import os

import pytest

__all__ = ["LONG_FAULTS", "long_fault"]

LONG_FAULTS = bool(os.environ.get("ZIPNET_LONG_FAULTS"))
"""Whether this run takes the time."""

long_fault = pytest.mark.skipif(not LONG_FAULTS, reason="minutes long: make faults")
