"""Parsing quotes, bodies, TDREPORTs and PCK extensions, to the last byte."""

from __future__ import annotations

import struct

import pytest

from tdx.errors import Check, QuoteError
from tdx.quote import (
    BODY_BYTES,
    INTEL_QE_VENDOR,
    BodyType,
    parse_pck_extension,
    parse_quote,
    parse_tdreport,
)
from tdx.quote.der import elements, raw_elements
from tests.tdx import vectors
from tests.tdx.forged import honest_quote

NAMES = {
    "dcapqvl_tdx_quote": (4, BodyType.TD10, 70),
    "dcapqvl_tdx_quote_outdated": (5, BodyType.TD15, 0),
    "dcapqvl_tappd": (4, BodyType.TD10, 70),
    "gotdx_v5": (5, BodyType.TD15, 0),
    "gotdx_cos113": (4, BodyType.TD10, 3065),
    "fb_gcp_2025": (4, BodyType.TD10, 3065),
}


def structure(
    *, version: int = 4, kind: BodyType = BodyType.TD10, auth: bytes = b"auth", inner: bytes = b"x"
) -> bytes:
    """Lay out a quote whose fields are recognisable, by hand and apart from the parser."""
    header = struct.pack("<HHIHH16s20s", version, 2, 0x81, 0, 0, INTEL_QE_VENDOR, b"user")
    if version == 5:
        header += struct.pack("<HI", kind, BODY_BYTES[kind])
    body = bytes(i % 251 for i in range(BODY_BYTES[kind]))
    certification = (
        bytes(384)
        + b"q" * 64
        + struct.pack("<H", len(auth))
        + auth
        + struct.pack("<HI", 5, len(inner))
        + inner
    )
    section = b"s" * 64 + b"k" * 64 + struct.pack("<HI", 6, len(certification)) + certification
    return header + body + struct.pack("<I", len(section)) + section


def rejected(data: bytes) -> Check:
    with pytest.raises(QuoteError) as caught:
        parse_quote(data)
    return caught.value.check


@pytest.mark.parametrize("name", NAMES)
def test_real_quotes_parse_to_their_version_body_and_padding(name: str) -> None:
    version, kind, padding = NAMES[name]
    parsed = parse_quote(vectors.quote(name))
    assert (parsed.header.version, parsed.report.kind, parsed.padding_bytes) == (
        version,
        kind,
        padding,
    )
    assert parsed.certification_type == 5
    assert parsed.report.td_attributes == 0x10000000
    assert not parsed.qe_report.debug
    assert parsed.qe_report.isvprodid == 2


def test_sgx_quote_is_refused_by_its_version() -> None:
    assert rejected(vectors.quote("dcapqvl_sgx_quote")) is Check.VERSION


def test_bytes_after_a_real_quote_are_refused() -> None:
    assert rejected(vectors.quote("gotdx_spr_v4")) is Check.TRAILING_BYTES


@pytest.mark.parametrize("kind", list(BodyType))
def test_every_field_of_a_body_comes_from_its_place(kind: BodyType) -> None:
    data = structure(version=5, kind=kind)
    report = parse_quote(data).report
    body = data[54 : 54 + BODY_BYTES[kind]]
    pieces = [
        report.tee_tcb_svn,
        report.mrseam,
        report.mrsignerseam,
        report.seam_attributes,
        report.td_attributes.to_bytes(8, "little"),
        report.xfam.to_bytes(8, "little"),
        report.mrtd,
        report.mrconfigid,
        report.mrowner,
        report.mrownerconfig,
        *report.rtmr,
        report.report_data,
        report.tee_tcb_svn2 or b"",
        report.mrservicetd or b"",
    ]
    if report.ex is not None:
        ex = report.ex
        pieces += [
            bytes([ex.vmid]),
            ex.td_id,
            ex.device_info,
            ex.init_servtd_hash,
            ex.init_servtd_attributes,
            ex.init_cpusvn,
            ex.init_tee_tcb_svn,
            ex.init_fmspc,
            ex.current_servtd_hash,
            ex.current_servtd_attributes,
        ]
    assert b"".join(pieces) == body
    assert (report.ex is not None) == (kind is BodyType.TD15EX)


def test_signed_prefix_and_identity_ignore_padding() -> None:
    plain = parse_quote(structure())
    padded = parse_quote(structure() + bytes(100))
    assert plain.signed == padded.signed
    assert len(plain.signed) == 632
    assert plain.identity == padded.identity


@pytest.mark.parametrize("version", [4, 5])
def test_truncation_at_every_offset_is_refused(version: int) -> None:
    data = structure(version=version)
    for length in range(len(data)):
        assert rejected(data[:length]) is Check.STRUCTURE


HEADER_CASES = {
    "version 3": (0, 3, Check.VERSION),
    "key type P-384": (2, 3, Check.KEY_TYPE),
    "tee type SGX": (4, 0, Check.TEE_TYPE),
    "foreign vendor": (12, 0, Check.QE_VENDOR),
    "outer certification type": (764, 5, Check.CERTIFICATION_TYPE),
    "outer size": (766, 1, Check.STRUCTURE),
    "auth size too large": (1219, 0xFF, Check.STRUCTURE),
    "inner size": (1226, 2, Check.STRUCTURE),
}


@pytest.mark.parametrize("title", HEADER_CASES)
def test_a_wrong_field_is_refused_by_its_own_check(title: str) -> None:
    offset, value, check = HEADER_CASES[title]
    data = bytearray(structure())
    data[offset] = value
    assert rejected(bytes(data)) is check


@pytest.mark.parametrize(("number", "size"), [(1, 384), (3, 647), (4, 648), (9, 648)])
def test_a_body_descriptor_that_lies_is_refused(number: int, size: int) -> None:
    data = bytearray(structure(version=5, kind=BodyType.TD15))
    struct.pack_into("<HI", data, 48, number, size)
    assert rejected(bytes(data)) is Check.BODY_TYPE


@pytest.mark.parametrize("place", range(12, 28))
def test_every_byte_of_the_vendor_counts(place: int) -> None:
    wrong = bytearray(honest_quote())
    wrong[place] ^= 1
    with pytest.raises(QuoteError) as caught:
        parse_quote(bytes(wrong))
    assert caught.value.check is Check.QE_VENDOR


def test_only_zeros_up_to_the_size_cap_may_follow() -> None:
    data = structure()
    assert parse_quote(data + bytes(16 * 1024 - len(data))).padding_bytes > 0
    assert rejected(data + bytes(16 * 1024 - len(data) + 1)) is Check.SIZE
    assert rejected(data + bytes(9) + b"\x01") is Check.TRAILING_BYTES


def test_tdreport_fields_and_refusals() -> None:
    data = bytes([0x81]) + bytes(i % 249 for i in range(1, 1024))
    report = parse_tdreport(data)
    assert report.report_data == data[128:192]
    assert report.mrtd == data[528:576]
    assert b"".join(report.rtmr) == data[720:912]
    for wrong, check in ((data[:-1], Check.STRUCTURE), (bytes(1024), Check.TEE_TYPE)):
        with pytest.raises(QuoteError) as caught:
            parse_tdreport(wrong)
        assert caught.value.check is check


DER_REFUSED = {
    "indefinite length": "3080",
    "length of length cut": "3082",
    "long form for a short length": "30810100",
    "padded length": "3082000100",
    "three length bytes": "3083000001",
    "value cut": "0403aabb",
    "tag alone": "04",
    "indefinite length with 128 bytes after": "0480" + "00" * 128,
    "padded length of 255": "048200ff" + "00" * 255,
    "four length bytes": "048400010000" + "00" * 65536,
}


@pytest.mark.parametrize("title", DER_REFUSED)
def test_der_that_is_not_strict_is_refused(title: str) -> None:
    with pytest.raises(QuoteError) as caught:
        elements(bytes.fromhex(DER_REFUSED[title]))
    assert caught.value.check is Check.PCK_EXTENSION


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_der_of_every_length_is_read(size: int) -> None:
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    length = bytes([size]) if size < 0x80 else bytes([0x80 | len(digits)]) + digits
    whole = b"\x04" + length + bytes(size)
    assert elements(whole + b"\x05\x00") == [(4, bytes(size)), (5, b"")]
    with pytest.raises(QuoteError):
        elements(whole[:-1])


def test_only_one_whole_sequence_is_split_into_raw_elements() -> None:
    assert raw_elements(bytes.fromhex("300502010104 00".replace(" ", "")), Check.ROOT_CRL) == [
        b"\x02\x01\x01",
        b"\x04\x00",
    ]
    for wrong in ("3103020101", "300302010100", "3003020201", ""):
        with pytest.raises(QuoteError) as caught:
            raw_elements(bytes.fromhex(wrong), Check.ROOT_CRL)
        assert caught.value.check is Check.ROOT_CRL


def der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes(2 if len(content) > 255 else 1, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def sgx_field(arc: bytes, tag: int, value: bytes) -> bytes:
    oid = der(6, bytes.fromhex("2a864886f84d010d01") + arc)
    return der(0x30, oid + der(tag, value))


def extension(**replaced: bytes) -> bytes:
    """Lay out an SGX extension; keyword arguments replace or drop (empty) a top-level field."""
    svns = b"".join(sgx_field(bytes([2, i]), 2, bytes([i])) for i in range(1, 17))
    tcb = svns + sgx_field(b"\x02\x11", 2, b"\x0b") + sgx_field(b"\x02\x12", 4, bytes(16))
    fields = {
        "ppid": sgx_field(b"\x01", 4, b"p" * 16),
        "tcb": sgx_field(b"\x02", 0x30, tcb),
        "pceid": sgx_field(b"\x03", 4, bytes(2)),
        "fmspc": sgx_field(b"\x04", 4, b"fmspc!"),
        "type": sgx_field(b"\x05", 10, b"\x01"),
    }
    return der(0x30, b"".join((fields | replaced).values()))


def test_pck_extension_reads_component_integers() -> None:
    read = parse_pck_extension(extension())
    assert read.component_svns == tuple(range(1, 17))
    assert (read.pcesvn, read.fmspc, read.ppid) == (11, b"fmspc!", b"p" * 16)
    assert (read.platform_instance_id, read.smt_enabled) == (None, None)
    assert read.platform == b"p" * 16
    named = parse_pck_extension(extension(instance=sgx_field(b"\x06", 4, b"i" * 16)))
    assert (named.ppid, named.platform) == (b"p" * 16, b"i" * 16)
    for number in (0, 2):
        least = parse_pck_extension(extension(type=sgx_field(b"\x05", 10, bytes([number]))))
        assert least.sgx_type == number


EXTENSIONS_REFUSED = {
    "field twice": extension(more=sgx_field(b"\x03", 4, bytes(2))),
    "field missing": extension(pceid=b""),
    "PPID of 15 bytes": extension(ppid=sgx_field(b"\x01", 4, b"p" * 15)),
    "FMSPC as UTF-8": extension(fmspc=sgx_field(b"\x04", 12, b"fmspc!")),
    "foreign OID": extension(more=der(0x30, der(6, b"\x2a\x03") + der(4, b""))),
    "OID of a sister arc": extension(
        more=der(0x30, der(6, bytes.fromhex("2a864886f84d010d0208")) + der(4, b""))
    ),
    "field of another group": extension(
        flags=sgx_field(b"\x07", 0x30, sgx_field(b"\x06\x01", 1, b"\xff"))
    ),
    "octets for an OID": extension(
        more=der(0x30, der(4, bytes.fromhex("2a864886f84d010d0108")) + der(4, b""))
    ),
    "field of three": extension(
        more=der(0x30, der(6, bytes.fromhex("2a864886f84d010d0108")) + der(4, b"") * 2)
    ),
    "arc of two bytes": extension(more=sgx_field(b"\x81\x01", 4, bytes(2))),
    "the arc itself": extension(more=sgx_field(b"", 4, bytes(2))),
    "type out of range": extension(type=sgx_field(b"\x05", 10, b"\x03")),
    "negative number": extension(type=sgx_field(b"\x05", 10, b"\xff")),
    "empty number": extension(type=sgx_field(b"\x05", 10, b"")),
    "SET for SEQUENCE": b"\x31" + extension()[1:],
    "padded number": extension(type=sgx_field(b"\x05", 10, b"\x00\x01")),
    "boolean of 1": extension(flags=sgx_field(b"\x07", 0x30, sgx_field(b"\x07\x01", 1, b"\x01"))),
    "bytes after": extension() + b"\x05\x00",
    "TCB without components": extension(tcb=sgx_field(b"\x02", 0x30, b"")),
}


@pytest.mark.parametrize("title", EXTENSIONS_REFUSED)
def test_pck_extension_with_two_readings_is_refused(title: str) -> None:
    with pytest.raises(QuoteError) as caught:
        parse_pck_extension(EXTENSIONS_REFUSED[title])
    assert caught.value.check is Check.PCK_EXTENSION
