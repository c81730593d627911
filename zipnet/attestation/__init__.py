"""Adapter of the attestor port: quotes of this machine, collateral from a file, judgement."""

from zipnet.attestation.platform import PlatformAttestor
from zipnet.attestation.source import PlatformConfig, QuoteSourceKind, open_source

__all__ = ["PlatformAttestor", "PlatformConfig", "QuoteSourceKind", "open_source"]
