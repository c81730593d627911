"""Emulate TDX quotes, collateral and every forgery the verifier must refuse."""

from tdx.emulator.authority import PckValues
from tdx.emulator.documents import BundleRecipe, make_bundle
from tdx.emulator.emulator import Emulator
from tdx.emulator.quotes import QeFields, QuoteFields, TdFields
from tdx.emulator.service import QuoteService

__all__ = [
    "BundleRecipe",
    "Emulator",
    "PckValues",
    "QeFields",
    "QuoteFields",
    "QuoteService",
    "TdFields",
    "make_bundle",
]
