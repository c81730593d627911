"""The root a verification trusts: Intel's, pinned by hash, or an emulator's, marked for ever.

The type is closed. There are two ways to make one, no flag, variable or build option that turns one
into the other, and every verdict carries the root it was reached under. A root enters the group id
through :meth:`TrustRoot.digest`, so an emulated network cannot talk to a production one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

from tdx.errors import PolicyError

__all__ = [
    "EMULATED_FMSPC_PREFIX",
    "EMULATED_ORGANIZATION",
    "EMULATED_QE_MRSIGNER",
    "EMULATED_USER_DATA",
    "INTEL_ORGANIZATION",
    "INTEL_ROOT_SHA256",
    "TrustRoot",
]

INTEL_ROOT_SHA256 = bytes.fromhex(
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
)
INTEL_ORGANIZATION = "Intel Corporation"
EMULATED_ORGANIZATION = "EMULATED - NOT INTEL"
EMULATED_USER_DATA = b"EMULATED"
EMULATED_QE_MRSIGNER = sha256(b"EMULATED QE").digest()
EMULATED_FMSPC_PREFIX = b"\xe0EMUL"

_DOMAIN = b"tdx/trust-root/v1"
_MAKING = object()


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """Name the one root certificate that a chain must end in.

    Use :meth:`intel` or :meth:`emulated`; the constructor refuses everybody else.

    Attributes:
        kind: ``intel`` or ``emulated``.
        certificate_sha256: SHA-256 of the root certificate's DER (32 bytes).
    """

    kind: str
    certificate_sha256: bytes
    _made_here: object = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._made_here is not _MAKING:
            raise PolicyError("a trust root is made by TrustRoot.intel() or TrustRoot.emulated()")

    @classmethod
    def intel(cls) -> TrustRoot:
        """Trust the Intel SGX Root CA (notAfter 2049-12-31), pinned by the hash of its DER."""
        return cls("intel", INTEL_ROOT_SHA256, _MAKING)

    @classmethod
    def emulated(cls, root_der: bytes) -> TrustRoot:
        """Trust the root of an emulator, which says on its face that it is none of Intel's.

        Args:
            root_der: The emulator's root certificate; its subject's organisation must be
                ``EMULATED - NOT INTEL``.

        Raises:
            PolicyError: The bytes are no certificate, or one without the marker.
        """
        # Here, not above: an X.509 parser is slow to load, and naming Intel's root needs none.
        from cryptography import x509  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415

        try:
            subject = x509.load_der_x509_certificate(root_der).subject
        except ValueError as error:
            raise PolicyError("the emulated root is not a DER certificate") from error
        marks = [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        if marks != [EMULATED_ORGANIZATION]:
            raise PolicyError(
                "an emulated root carries its marker",
                hint=f"its subject's organisation must be {EMULATED_ORGANIZATION!r}",
            )
        return cls("emulated", sha256(root_der).digest(), _MAKING)

    @property
    def is_emulated(self) -> bool:
        """Whether quotes under this root come from software; production refuses those."""
        return self.kind != "intel"

    @property
    def organization(self) -> str:
        """The organisation every certificate under this root must name."""
        return EMULATED_ORGANIZATION if self.is_emulated else INTEL_ORGANIZATION

    def digest(self) -> bytes:
        """Return 32 bytes that differ for every kind and root: SHA-256(domain, kind, hash)."""
        kind = self.kind.encode()
        return sha256(_DOMAIN + bytes([len(kind)]) + kind + self.certificate_sha256).digest()
