"""Settings for the whole suite: nothing of the caller's shell leaks in, examples repeat."""

from __future__ import annotations

import os
from typing import Final

import hypothesis

from zipnet.settings.model import AggregatorInput, ClientInput, ServerInput
from zipnet.settings.sources import SECRET_NAMES

# What configures a node or a client, taken from where it is declared so that none is forgotten.
# Switches of the suite itself (ZIPNET_REQUIRE_..., ZIPNET_..._SEEDS) stay.
_SETTINGS: Final = {
    *(name for model in (ServerInput, AggregatorInput, ClientInput) for name in model.model_fields),
    *SECRET_NAMES,
    "build_commit",
}

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
        os.environ.pop(f"ZIPNET_{setting.upper()}", None)
        os.environ.pop(f"ZIPNET_{setting.upper()}_FILE", None)
    os.environ.pop("SSLKEYLOGFILE", None)
