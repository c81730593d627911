"""No damaged bytes are accepted, and none raise anything but QuoteError."""

from __future__ import annotations

import binascii
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdx.collateral import Bundle, parse_qe_identity, parse_tcb_info
from tdx.emulator import QuoteFields
from tdx.errors import QuoteError
from tdx.quote import parse_pck_extension, parse_quote, parse_tdreport
from tests.tdx.forged import emulator, honest_quote, judge

EXAMPLES = int(os.environ.get("ZIPNET_TDX_FUZZ_EXAMPLES", "250"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

position = st.integers(min_value=0, max_value=1 << 16)
flips = st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=4)


def flipped(data: bytes, where: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for at, bit in where:
        out[at % len(out)] ^= 1 << bit
    return bytes(out)


def refused_or_the_same(quote: bytes, honest: bytes) -> None:
    """Accepting is allowed only for bytes that mean exactly what the honest quote means."""
    try:
        verdict = judge(quote)
    except QuoteError:
        return
    # Zero padding may be cut and white space in PEM changed: what was signed must not be.
    assert parse_quote(quote).signed == parse_quote(honest).signed
    assert verdict.report == parse_quote(honest).report
    assert len(quote.rstrip(b"\0")) == len(honest.rstrip(b"\0"))


@fuzzed
@given(where=flips, version=st.sampled_from([4, 5]))
def test_flipped_quotes_are_refused(where: list[tuple[int, int]], version: int) -> None:
    honest = honest_quote(version)
    quote = flipped(honest, where)
    if quote == honest:
        return
    try:
        judge(quote)
    except QuoteError:
        return
    raise AssertionError(where)


@fuzzed
@given(cut=position, version=st.sampled_from([4, 5]))
def test_truncated_quotes_are_refused(cut: int, version: int) -> None:
    honest = honest_quote(version)
    try:
        judge(honest[: cut % len(honest)])
    except QuoteError:
        return
    raise AssertionError(cut)


@fuzzed
@given(start=position, size=st.integers(0, 600), source=position, insert=st.booleans())
def test_spliced_quotes_are_refused(start: int, size: int, source: int, insert: bool) -> None:
    honest, other = honest_quote(4), honest_quote(5)
    start, source = start % len(honest), source % len(other)
    piece = other[source : source + size]
    quote = honest[:start] + piece + honest[start if insert else start + len(piece) :]
    if quote != honest:
        refused_or_the_same(quote, honest)


@fuzzed
@given(where=flips)
def test_flipped_bundles_are_refused(where: list[tuple[int, int]]) -> None:
    honest = emulator().bundle()
    try:
        bundle = Bundle.from_json(flipped(honest.to_json().encode(), where))
        judge(honest_quote(), bundle)
    except QuoteError:
        return
    assert bundle == honest


@fuzzed
@given(
    part=st.sampled_from([item for item in Bundle.__slots__ if not item.endswith("_chain")]),
    where=flips,
    cut=st.one_of(st.none(), position),
)
def test_damaged_parts_of_a_bundle_are_refused(
    part: str, where: list[tuple[int, int]], cut: int | None
) -> None:
    honest = emulator().bundle()
    value = getattr(honest, part)
    raw = value.encode() if isinstance(value, str) else value
    raw = flipped(raw, where) if cut is None else raw[: cut % len(raw)]
    damaged = raw.decode("latin-1") if isinstance(value, str) else raw
    if damaged == value:
        return
    fields = {name: getattr(honest, name) for name in Bundle.__slots__}
    try:
        judge(honest_quote(), Bundle(**(fields | {part: damaged})))
    except QuoteError:
        return
    raise AssertionError(part)


@fuzzed
@given(data=st.binary(max_size=2000), prefix=st.integers(0, 1300))
def test_parsers_end_in_a_value_or_a_quote_error(data: bytes, prefix: int) -> None:
    for honest in (honest_quote(4), honest_quote(5), bytes([0x81])):
        for parse in (parse_quote, parse_tdreport, parse_pck_extension):
            try:
                parse(honest[:prefix] + data)
            except QuoteError:
                continue


def pem(der: bytes) -> bytes:
    lines = binascii.b2a_base64(der)
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n"


@fuzzed
@given(
    which=st.integers(0, 1),
    where=st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=3),
    grow=st.tuples(position, st.binary(max_size=8)),
)
def test_damaged_certificates_are_refused_by_name(
    which: int, where: list[tuple[int, int]], grow: tuple[int, bytes]
) -> None:
    one = emulator().hierarchy
    ders = [one.pck.der, one.pck_ca.der, one.root.der]
    at = grow[0] % len(ders[which])
    damaged = flipped(ders[which][:at] + grow[1] + ders[which][at:], where)
    if damaged == ders[which]:
        return
    ders[which] = damaged
    try:
        judge(emulator().make(QuoteFields(chain=b"".join(map(pem, ders)))))
    except QuoteError:
        return
    raise AssertionError(damaged)


@fuzzed
@given(where=st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=3))
def test_damaged_sgx_extensions_end_in_a_value_or_a_quote_error(
    where: list[tuple[int, int]],
) -> None:
    honest = emulator().hierarchy.pck.spec.sgx_extension or b""
    try:
        parse_pck_extension(flipped(honest, where))
    except QuoteError:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@fuzzed
@given(text=st.text(max_size=300), path=st.integers(0, 11), value=JSON)
def test_documents_end_in_a_value_or_a_quote_error(text: str, path: int, value: object) -> None:
    import json

    documents = [text]
    for honest in (emulator().bundle().tcb_info, emulator().bundle().qe_identity):
        fields = json.loads(honest)
        names = sorted(fields)
        fields[names[path % len(names)]] = value
        documents.append(json.dumps(fields))
    for document in documents:
        for parse in (parse_tcb_info, parse_qe_identity, Bundle.from_json):
            try:
                parse(document)
            except QuoteError:
                continue
