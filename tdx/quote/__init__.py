"""Parse TDX quotes, TD reports and PCK extensions: bytes to values, nothing believed yet."""

from tdx.quote.body import TdReport, TdReportEx
from tdx.quote.enclave import QeReport
from tdx.quote.header import BODY_BYTES, HEADER_BYTES, INTEL_QE_VENDOR, BodyType, Header
from tdx.quote.parse import MAX_QUOTE_BYTES, PCK_CHAIN_PEM, Quote, parse_quote
from tdx.quote.pck import SGX_EXTENSION_OID, PckExtension, parse_pck_extension
from tdx.quote.registers import REGISTER_BYTES, extend, extend_all
from tdx.quote.tdreport import TDREPORT_BYTES, TdReportLocal, parse_tdreport

__all__ = [
    "BODY_BYTES",
    "HEADER_BYTES",
    "INTEL_QE_VENDOR",
    "MAX_QUOTE_BYTES",
    "PCK_CHAIN_PEM",
    "REGISTER_BYTES",
    "SGX_EXTENSION_OID",
    "TDREPORT_BYTES",
    "BodyType",
    "Header",
    "PckExtension",
    "QeReport",
    "Quote",
    "TdReport",
    "TdReportEx",
    "TdReportLocal",
    "extend",
    "extend_all",
    "parse_pck_extension",
    "parse_quote",
    "parse_tdreport",
]
