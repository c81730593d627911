"""Settings for the whole suite: nothing of the caller's shell leaks in, examples repeat."""

from __future__ import annotations

import os
from typing import Final

import hypothesis

# What configures a node. Switches of the suite itself (ZIPNET_REQUIRE_..., ZIPNET_..._SEEDS) stay.
_SETTINGS: Final = [
    *("INSTANCE", "UNIVERSE", "COMMITTEE_SECRET", "SECRET", "BOOTSTRAP", "METRICS", "CADENCE"),
    *("MIN_PARTICIPANTS", "ROUND_PERIOD", "ROUND_DEADLINE", "FOLD_DEADLINE"),
]

hypothesis.settings.register_profile(
    "suite",
    deadline=None,  # a loaded machine is no failure; pytest-timeout bounds each test
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_configure() -> None:
    """Forget settings of the caller's shell, so that a test sees only what it sets itself."""
    for setting in _SETTINGS:
        os.environ.pop(f"ZIPNET_{setting}", None)
        os.environ.pop(f"ZIPNET_{setting}_FILE", None)
    os.environ.pop("SSLKEYLOGFILE", None)
