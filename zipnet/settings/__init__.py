"""Settings: flag > environment > file, checked against the descriptor, as frozen dataclasses.

Nothing outside this package sees pydantic. Every failure is a one-line
:class:`~zipnet.errors.ConfigError`; nothing is written before all checks have passed.
"""

from zipnet.settings.assemble import read_descriptor
from zipnet.settings.load import (
    load_aggregator,
    load_client,
    load_gateway,
    load_micro,
    load_server,
)
from zipnet.settings.types import (
    AggregatorSettings,
    ClientSettings,
    CommonSettings,
    Effective,
    GatewaySettings,
    MicroSettings,
    NodeSettings,
    ServerSettings,
)
from zipnet.settings.values import Endpoint

__all__ = [
    "AggregatorSettings",
    "ClientSettings",
    "CommonSettings",
    "Effective",
    "Endpoint",
    "GatewaySettings",
    "MicroSettings",
    "NodeSettings",
    "ServerSettings",
    "load_aggregator",
    "load_client",
    "load_gateway",
    "load_micro",
    "load_server",
    "read_descriptor",
]
