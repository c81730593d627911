"""The SGX extension of a PCK certificate (OID 1.2.840.113741.1.13.1): which platform signed.

The sixteen component SVNs are read from their INTEGERs, as Intel's verifier does, not from CPUSVN.
A repeated, missing or misshapen field is refused: an extension that can be read in two ways is a
gift to whoever signs certificates for attackers.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdx.errors import Check, QuoteError
from tdx.quote import der

__all__ = ["SGX_EXTENSION_OID", "PckExtension", "parse_pck_extension"]

SGX_EXTENSION_OID = "1.2.840.113741.1.13.1"
_SGX_ARC = bytes.fromhex("2a864886f84d010d01")  # the same in DER; longer arcs start with it
_SGX_ARC_BYTES = len(_SGX_ARC)
_COMPONENTS = 16
_COMPONENT_ARCS = tuple(bytes((2, place)) for place in range(1, _COMPONENTS + 1))
_MAX_SVN = 255
_MAX_PCESVN = 0xFFFF


@dataclass(frozen=True, slots=True)
class PckExtension:
    """Hold what the PCK certificate says about the platform.

    Attributes:
        ppid: 16 bytes, the platform's provisioning id. Names one machine: publish only salted.
        component_svns: Sixteen SVNs, 0 to 255 each.
        pcesvn: SVN of the provisioning certification enclave.
        cpusvn: 16 bytes.
        pceid: 2 bytes.
        fmspc: 6 bytes, family-model-stepping-platform-custom SKU.
        sgx_type: 0 standard, 1 scalable, 2 scalable with integrity.
        platform_instance_id: 16 bytes (Platform CA), or None (Processor CA).
        dynamic_platform: Whether packages may be added, or None if unsaid.
        cached_keys: Whether keys are cached by Intel, or None if unsaid.
        smt_enabled: Whether simultaneous multithreading is on, or None if unsaid.
    """

    ppid: bytes
    component_svns: tuple[int, ...]
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None

    @property
    def platform(self) -> bytes:
        """The platform instance id where there is one, else the PPID (16 bytes)."""
        return self.platform_instance_id or self.ppid


def parse_pck_extension(value: bytes) -> PckExtension:
    """Parse the DER value of the SGX extension.

    Raises:
        QuoteError: ``pck_extension`` for anything but the one expected reading.
    """
    outer = der.elements(value)
    if len(outer) != 1 or outer[0][0] != der.SEQUENCE:
        raise _refuse("the SGX extension is one SEQUENCE")
    fields = _fields(outer[0][1])
    tcb = _fields(_need(fields, b"\x02", der.SEQUENCE), prefix=b"\x02")
    platform = _optional(fields, b"\x06", der.OCTETS)
    flags = _fields(_optional(fields, b"\x07", der.SEQUENCE) or b"", prefix=b"\x07")
    return PckExtension(
        ppid=_octets(fields, b"\x01", 16),
        component_svns=tuple([_integer(tcb, arc, _MAX_SVN) for arc in _COMPONENT_ARCS]),
        pcesvn=_integer(tcb, b"\x02\x11", _MAX_PCESVN),
        cpusvn=_octets(tcb, b"\x02\x12", 16),
        pceid=_octets(fields, b"\x03", 2),
        fmspc=_octets(fields, b"\x04", 6),
        sgx_type=_number(_need(fields, b"\x05", der.ENUMERATED), 2),
        platform_instance_id=None if platform is None else _octets(fields, b"\x06", 16),
        dynamic_platform=_boolean(flags, b"\x07\x01"),
        cached_keys=_boolean(flags, b"\x07\x02"),
        smt_enabled=_boolean(flags, b"\x07\x03"),
    )


# A field is known by the arcs of its OID below the SGX arc, one byte each.
_Entry = tuple[int, bytes]


def _fields(content: bytes, prefix: bytes = b"") -> dict[bytes, _Entry]:
    found: dict[bytes, _Entry] = {}
    whole = _SGX_ARC + prefix
    for tag, value in der.elements(content):
        pair = der.elements(value) if tag == der.SEQUENCE else []
        if len(pair) != 2 or pair[0][0] != der.OID:  # noqa: PLR2004 - an OID and its value
            raise _refuse("an SGX field is a SEQUENCE of OID and value")
        oid = pair[0][1]
        arc = oid[_SGX_ARC_BYTES:]
        if not (arc and oid.startswith(whole) and arc.isascii()):
            raise _refuse(f"OID {oid.hex()} belongs to the SGX arc")
        if arc in found:
            raise _refuse(f"field {_dotted(arc)} appears once")
        found[arc] = pair[1]
    return found


def _optional(fields: dict[bytes, _Entry], arc: bytes, tag: int) -> bytes | None:
    entry = fields.get(arc)
    if entry is None:
        return None
    if entry[0] != tag:
        raise _refuse(f"field {_dotted(arc)} has tag {tag}")
    return entry[1]


def _need(fields: dict[bytes, _Entry], arc: bytes, tag: int) -> bytes:
    value = _optional(fields, arc, tag)
    if value is None:
        raise _refuse(f"field {_dotted(arc)} is present")
    return value


def _octets(fields: dict[bytes, _Entry], arc: bytes, size: int) -> bytes:
    value = _need(fields, arc, der.OCTETS)
    if len(value) != size:
        raise _refuse(f"field {_dotted(arc)} has {size} bytes")
    return value


def _integer(fields: dict[bytes, _Entry], arc: bytes, maximum: int) -> int:
    return _number(_need(fields, arc, der.INTEGER), maximum)


def _number(value: bytes, maximum: int) -> int:
    number = int.from_bytes(value, "big", signed=True)
    padded = len(value) > 1 and value[0] == 0 and value[1] < 0x80  # noqa: PLR2004 - the sign bit
    if not value or padded or not 0 <= number <= maximum:
        raise _refuse(f"a number is minimal and at most {maximum}")
    return number


def _boolean(fields: dict[bytes, _Entry], arc: bytes) -> bool | None:
    value = _optional(fields, arc, der.BOOLEAN)
    if value is None:
        return None
    if value not in (b"\x00", b"\xff"):
        raise _refuse(f"field {_dotted(arc)} is a DER boolean")
    return value == b"\xff"


def _dotted(arc: bytes) -> str:
    return ".".join(map(str, arc))


def _refuse(message: str) -> QuoteError:
    return QuoteError(Check.PCK_EXTENSION, message)
