"""A bundle: all collateral one quote is judged by, in one JSON object of nine strings.

The keys are those of the ``dcap-qvl`` wheel, so a bundle goes to either verifier. ``tcb_info`` and
``qe_identity`` are the exact signed texts; CRLs and signatures are hexadecimal; chains are PEM.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass, field

from tdx.collateral.qe_identity import parse_qe_identity
from tdx.collateral.strict import load_object, split_pem
from tdx.collateral.tcb_info import parse_tcb_info
from tdx.errors import Check, QuoteError

__all__ = ["MAX_BUNDLE_BYTES", "Bundle", "expiries"]

MAX_BUNDLE_BYTES = 1024 * 1024
_CHECK = Check.COLLATERAL_FORMAT
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Bundle:
    """Hold collateral as it came: nothing in it is believed until ``tdx.verify`` has used it.

    Attributes:
        pck_crl_issuer_chain: PEM: the PCK CA, then the root.
        root_ca_crl: DER, signed by the root.
        pck_crl: DER, signed by the PCK CA.
        tcb_info_issuer_chain: PEM: the TCB signer, then the root.
        tcb_info: Exact signed text.
        tcb_info_signature: 64 bytes r || s.
        qe_identity_issuer_chain: PEM: the TCB signer, then the root.
        qe_identity: Exact signed text.
        qe_identity_signature: 64 bytes r || s.
    """

    pck_crl_issuer_chain: str = field(repr=False)
    root_ca_crl: bytes = field(repr=False)
    pck_crl: bytes = field(repr=False)
    tcb_info_issuer_chain: str = field(repr=False)
    tcb_info: str = field(repr=False)
    tcb_info_signature: bytes = field(repr=False)
    qe_identity_issuer_chain: str = field(repr=False)
    qe_identity: str = field(repr=False)
    qe_identity_signature: bytes = field(repr=False)

    @classmethod
    def from_json(cls, data: bytes | str) -> Bundle:
        """Parse a bundle file of at most 1 MiB.

        Raises:
            QuoteError: ``size`` or ``collateral_format``.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            raise QuoteError(Check.SIZE, "collateral is at most 1 MiB", value=len(data))
        fields = load_object(data, _CHECK)
        return cls(
            pck_crl_issuer_chain=fields.text("pck_crl_issuer_chain"),
            root_ca_crl=_binary(fields.text("root_ca_crl"), "root_ca_crl"),
            pck_crl=_binary(fields.text("pck_crl"), "pck_crl"),
            tcb_info_issuer_chain=fields.text("tcb_info_issuer_chain"),
            tcb_info=fields.text("tcb_info"),
            tcb_info_signature=fields.hexadecimal("tcb_info_signature", _SIGNATURE_BYTES),
            qe_identity_issuer_chain=fields.text("qe_identity_issuer_chain"),
            qe_identity=fields.text("qe_identity"),
            qe_identity_signature=fields.hexadecimal("qe_identity_signature", _SIGNATURE_BYTES),
        )

    def to_json(self) -> str:
        """Return the bundle file: one JSON object with nine sorted keys."""
        return json.dumps(
            {
                "pck_crl": self.pck_crl.hex(),
                "pck_crl_issuer_chain": self.pck_crl_issuer_chain,
                "qe_identity": self.qe_identity,
                "qe_identity_issuer_chain": self.qe_identity_issuer_chain,
                "qe_identity_signature": self.qe_identity_signature.hex(),
                "root_ca_crl": self.root_ca_crl.hex(),
                "tcb_info": self.tcb_info,
                "tcb_info_issuer_chain": self.tcb_info_issuer_chain,
                "tcb_info_signature": self.tcb_info_signature.hex(),
            },
            indent=1,
        )


def expiries(bundle: Bundle) -> dict[str, int]:
    """Say when each part lapses (Unix seconds), for alerts; nothing is verified here.

    Raises:
        QuoteError: A part does not parse.
    """
    found = {
        "tcb_info": parse_tcb_info(bundle.tcb_info).next_update,
        "qe_identity": parse_qe_identity(bundle.qe_identity).next_update,
        "root_ca_crl": _crl_expiry(bundle.root_ca_crl),
        "pck_crl": _crl_expiry(bundle.pck_crl),
    }
    for name in ("pck_crl", "tcb_info", "qe_identity"):
        chain: str = getattr(bundle, f"{name}_issuer_chain")
        found[f"{name}_issuer_chain"] = _chain_expiry(chain)
    return found


def _crl_expiry(der: bytes) -> int:
    # Here, not above: an X.509 parser is slow to load, and bundles are often only carried.
    from cryptography import x509  # noqa: PLC0415

    try:
        until = x509.load_der_x509_crl(der).next_update_utc
    except ValueError as error:
        raise QuoteError(_CHECK, "a CRL is DER") from error
    if until is None:
        raise QuoteError(_CHECK, "a CRL says when the next one comes")
    return int(until.timestamp())


def _chain_expiry(pem: str) -> int:
    from cryptography import x509  # noqa: PLC0415 - as above

    try:
        chain = [x509.load_der_x509_certificate(der) for der in split_pem(pem.encode(), _CHECK)]
        return min(int(certificate.not_valid_after_utc.timestamp()) for certificate in chain)
    except ValueError as error:
        raise QuoteError(_CHECK, "an issuer chain is certificates") from error


def _binary(text: str, name: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError as error:
        raise QuoteError(_CHECK, f"{name} is hexadecimal") from error
