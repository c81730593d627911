"""Every test that asks for ``engine`` runs once over each adapter."""

from __future__ import annotations

import pytest

from tests.conformance.transport.engines import ENGINES, Engine


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)
