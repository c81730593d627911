"""Fetch collateral from Intel's PCS or a caching PCCS: a tool, never part of a verification.

What comes back is signed, and is believed only when ``tdx.verify`` has checked it; so the transport
needs no trust, only manners: HTTPS (plain HTTP to this machine only), no redirects, small answers,
a timeout.

Signed documents are cut out of the answers byte by byte; writing them again from parsed JSON would
break their signatures, or worse, hide that they were broken.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message

from cryptography import x509
from cryptography.x509.oid import NameOID

from tdx.collateral import MAX_BUNDLE_BYTES, Bundle, split_pem
from tdx.errors import Check, FetchError, PolicyError, QuoteError
from tdx.quote import PCK_CHAIN_PEM, SGX_EXTENSION_OID, Quote, parse_pck_extension

__all__ = ["INTEL_PCS", "INTEL_ROOT_CRL", "Platform", "fetch_bundle", "platform_of"]

INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_CHAIN_OF_TCB_INFO = "TCB-Info-Issuer-Chain"
_CHAIN_OF_QE_IDENTITY = "SGX-Enclave-Identity-Issuer-Chain"
_CHAIN_OF_PCK_CRL = "SGX-PCK-CRL-Issuer-Chain"
_AUTHORITIES = {
    "Intel SGX PCK Platform CA": "platform",
    "Intel SGX PCK Processor CA": "processor",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """Hold what collateral is asked for by.

    Attributes:
        fmspc: 6 bytes.
        authority: ``platform`` or ``processor``: which CA issued the PCK certificate.
    """

    fmspc: bytes
    authority: str


def platform_of(quote: Quote) -> Platform:
    """Read from a quote's PCK chain what collateral it needs; nothing is verified.

    Raises:
        QuoteError: The quote carries no readable PCK chain.
    """
    if quote.certification_type != PCK_CHAIN_PEM:
        raise QuoteError(
            Check.CERTIFICATION_TYPE,
            "the quote carries its PCK chain",
            value=quote.certification_type,
        )
    ders = split_pem(quote.certification, Check.CHAIN_SHAPE)
    try:
        leaf = x509.load_der_x509_certificate(ders[0])
        oid = x509.ObjectIdentifier(SGX_EXTENSION_OID)
        extension = leaf.extensions.get_extension_for_oid(oid).value
        issuer = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    except (ValueError, IndexError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise QuoteError(Check.PCK_EXTENSION, "the PCK certificate can be read") from error
    authority = _AUTHORITIES.get(str(issuer))
    if authority is None or not isinstance(extension, x509.UnrecognizedExtension):
        raise QuoteError(Check.CERTIFICATE_NAME, "a PCK CA issued the leaf", value=str(issuer))
    return Platform(parse_pck_extension(extension.value).fmspc, authority)


def fetch_bundle(
    quote: Quote,
    *,
    url: str = INTEL_PCS,
    root_crl_url: str | None = None,
    timeout_s: float = 20.0,
) -> Bundle:
    """Fetch the collateral of a quote.

    Args:
        quote: The parsed quote.
        url: Base address of a PCS or PCCS, without ``/sgx`` or ``/tdx``.
        root_crl_url: Where the root CRL is; by default Intel's address for Intel's PCS, and the
            PCCS's own for any other.
        timeout_s: For each of the four requests.

    Raises:
        FetchError: A request failed or was answered with something else.
        PolicyError: The address is not HTTPS.
        QuoteError: The quote carries no readable PCK chain.
    """
    platform = platform_of(quote)
    base = url.rstrip("/")
    info = _get(f"{base}/tdx/certification/v4/tcb?fmspc={platform.fmspc.hex()}", timeout_s)
    identity = _get(f"{base}/tdx/certification/v4/qe/identity", timeout_s)
    query = urllib.parse.urlencode({"ca": platform.authority, "encoding": "der"})
    pck_crl = _get(f"{base}/sgx/certification/v4/pckcrl?{query}", timeout_s)
    intel = base == INTEL_PCS
    default = INTEL_ROOT_CRL if intel else f"{base}/sgx/certification/v4/rootcacrl"
    root_crl = _get(root_crl_url or default, timeout_s)
    tcb_info, tcb_info_signature = _cut(info.body, "tcbInfo")
    qe_identity, qe_identity_signature = _cut(identity.body, "enclaveIdentity")
    return Bundle(
        pck_crl_issuer_chain=pck_crl.chain(_CHAIN_OF_PCK_CRL),
        root_ca_crl=_binary(root_crl.body),
        pck_crl=_binary(pck_crl.body),
        tcb_info_issuer_chain=info.chain(_CHAIN_OF_TCB_INFO),
        tcb_info=tcb_info,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=identity.chain(_CHAIN_OF_QE_IDENTITY),
        qe_identity=qe_identity,
        qe_identity_signature=qe_identity_signature,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    url: str
    body: bytes
    headers: Message

    def chain(self, name: str) -> str:
        value = self.headers.get(name)
        if not isinstance(value, str):
            raise FetchError(f"{self.url} sends its issuer chain in {name}")
        return urllib.parse.unquote(value)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow nothing: the answer is then an error with its status."""


def _get(url: str, timeout_s: float) -> _Answer:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise PolicyError(f"{url} is not https", hint="plain http is for this machine only")
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(url, timeout=timeout_s) as response:
            body = response.read(MAX_BUNDLE_BYTES + 1)
            headers = response.headers
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url} answers {error.code}") from error
    except (OSError, ValueError) as error:
        raise FetchError(f"{url} cannot be reached: {error}") from error
    if len(body) > MAX_BUNDLE_BYTES:
        raise FetchError(f"{url} answers with more than 1 MiB")
    return _Answer(url, body, headers)


def _cut(body: bytes, name: str) -> tuple[str, bytes]:
    try:
        text = body.decode("ascii")
        start = re.match(rf'\s*\{{\s*"{name}"\s*:\s*', text)
        if start is None:
            raise ValueError(name)
        _, end = json.JSONDecoder().raw_decode(text, start.end())
        rest = re.fullmatch(r'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*', text[end:])
        if rest is None:
            raise ValueError(name)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"the service answers with {name} and its signature") from error
    return text[start.end() : end], bytes.fromhex(rest[1])


def _binary(body: bytes) -> bytes:
    # A PCCS gives the root CRL, and some the PCK CRL, in hexadecimal; DER starts with 0x30 0x8x.
    try:
        return bytes.fromhex(body.decode("ascii"))
    except ValueError:
        return body
