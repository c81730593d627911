"""Fetching collateral from a real HTTP server that speaks as a PCS or PCCS does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote as url_quote
from urllib.parse import urlsplit

import pytest

from tdx.collateral import Bundle
from tdx.emulator import QuoteFields
from tdx.emulator.authority import issue
from tdx.errors import Check, FetchError, PolicyError, QuoteError
from tdx.fetch import fetch_bundle, platform_of
from tdx.quote import parse_quote
from tests.tdx import vectors
from tests.tdx.forged import emulator, honest_quote, judge
from tests.tdx.test_cli import run


@dataclass
class Service:
    """A PCCS for one platform; ``changes`` replace whole answers by path."""

    bundle: Bundle
    changes: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, target: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(target)
        path = urlsplit(target).path
        if path in self.changes:
            return self.changes[path]
        one = self.bundle
        answers = {
            "/tdx/certification/v4/tcb": (
                self.signed("tcbInfo", one.tcb_info, one.tcb_info_signature),
                {"TCB-Info-Issuer-Chain": url_quote(one.tcb_info_issuer_chain)},
            ),
            "/tdx/certification/v4/qe/identity": (
                self.signed("enclaveIdentity", one.qe_identity, one.qe_identity_signature),
                {"SGX-Enclave-Identity-Issuer-Chain": url_quote(one.qe_identity_issuer_chain)},
            ),
            "/sgx/certification/v4/pckcrl": (
                one.pck_crl,
                {"SGX-PCK-CRL-Issuer-Chain": url_quote(one.pck_crl_issuer_chain)},
            ),
            "/sgx/certification/v4/rootcacrl": (one.root_ca_crl.hex().encode(), {}),
        }
        body, headers = answers[path]
        return 200, body, headers

    def signed(self, name: str, text: str, signature: bytes) -> bytes:
        return f'{{"{name}":{text},"signature":"{signature.hex()}"}}'.encode()


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    known = Service(emulator().bundle())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = known.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield known, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_fetched_is_what_was_signed(service: tuple[Service, str]) -> None:
    known, url = service
    bundle = fetch_bundle(parse_quote(honest_quote()), url=url + "/")
    assert bundle == emulator().bundle()
    assert judge(honest_quote(), bundle).assessment.emulated
    assert known.asked == [
        "/tdx/certification/v4/tcb?fmspc=e0454d554c00",
        "/tdx/certification/v4/qe/identity",
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "/sgx/certification/v4/rootcacrl",
    ]


def test_signed_text_keeps_its_white_space(service: tuple[Service, str]) -> None:
    known, url = service
    spaced = emulator().bundle().tcb_info.replace(",", " ,\n ")
    known.bundle = replace(known.bundle, tcb_info=spaced)
    assert fetch_bundle(parse_quote(honest_quote()), url=url).tcb_info == spaced


TCB = "/tdx/certification/v4/tcb"
CHAIN = {"TCB-Info-Issuer-Chain": "x"}
WRONG = {
    "not found": (404, b"", {}),
    "redirect": (302, b"", {"Location": "http://127.0.0.1:1/"}),
    "no chain": (200, b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}', {}),
    "no signature": (200, b'{"tcbInfo":{}}', CHAIN),
    "short signature": (200, b'{"tcbInfo":{},"signature":"00"}', CHAIN),
    "something after": (200, b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}x', CHAIN),
    "another document": (200, b'{"other":{}}', CHAIN),
    "no JSON": (200, b'{"tcbInfo":{', CHAIN),
    "endless nesting": (200, b'{"tcbInfo":' + b"[" * 100_000, CHAIN),
    "not ASCII": (200, b'{"tcbInfo":"\xff"}', CHAIN),
    "too much": (200, b" " * (1024 * 1024 + 1), CHAIN),
}


@pytest.mark.parametrize("title", WRONG)
def test_a_service_that_answers_something_else_is_refused(
    service: tuple[Service, str], title: str
) -> None:
    known, url = service
    known.changes[TCB] = WRONG[title]
    with pytest.raises(FetchError):
        fetch_bundle(parse_quote(honest_quote()), url=url)


def test_nothing_is_asked_of_a_plain_address_elsewhere() -> None:
    for url in ("http://192.0.2.1", "ftp://127.0.0.1", "file:///etc"):
        with pytest.raises(PolicyError, match="https"):
            fetch_bundle(parse_quote(honest_quote()), url=url)


def test_a_service_that_is_not_there_is_said() -> None:
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_bundle(parse_quote(honest_quote()), url="http://127.0.0.1:1", timeout_s=2)


def test_the_platform_is_read_from_the_quote() -> None:
    assert platform_of(parse_quote(vectors.quote("fb_gcp_2025"))).fmspc.hex() == "00806f050000"
    assert platform_of(parse_quote(vectors.quote("gotdx_v5"))).authority == "platform"
    one = emulator()
    leaf = issue(one.hierarchy.pck.spec, one.hierarchy.root)
    cases = {
        Check.CERTIFICATION_TYPE: QuoteFields(inner_type=4),
        Check.PCK_EXTENSION: QuoteFields(chain=one.hierarchy.pck_ca.pem.encode()),
        Check.CERTIFICATE_NAME: QuoteFields(chain=leaf.pem.encode()),
        Check.CHAIN_SHAPE: QuoteFields(chain=b"no PEM"),
    }
    for check, fields in cases.items():
        with pytest.raises(QuoteError) as caught:
            platform_of(parse_quote(one.make(fields)))
        assert caught.value.check is check
    with pytest.raises(QuoteError):
        platform_of(parse_quote(one.make(QuoteFields(chain=b""))))


def test_the_commands_fetch_and_show_what_lapses_first(
    service: tuple[Service, str], tmp_path: Path
) -> None:
    _, url = service
    quote, out = tmp_path / "quote", tmp_path / "bundle.json"
    quote.write_bytes(honest_quote())
    done = run("fetch", quote, "--out", out, "--url", url, "--json")
    assert done.returncode == 0
    assert Bundle.from_json(out.read_bytes()) == emulator().bundle()
    lapses = json.loads(done.stdout)
    assert list(lapses.values()) == sorted(lapses.values())
    assert len(lapses) == 7
    people = run("expiry", out)
    assert people.stdout.splitlines()[-1].endswith(b"_issuer_chain")
    assert run("expiry", quote).returncode == 1
    assert run("fetch", quote, "--out", out, "--url", "http://127.0.0.1:1").returncode == 1
    assert run("fetch", quote, "--out", tmp_path / "no" / "b", "--url", url).returncode == 2
