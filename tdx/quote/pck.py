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
_COMPONENTS = 16
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
    tcb = _fields(_need(fields, "2", der.SEQUENCE), prefix="2.")
    platform = _optional(fields, "6", der.OCTETS)
    flags = _fields(_optional(fields, "7", der.SEQUENCE) or b"", prefix="7.")
    return PckExtension(
        ppid=_octets(fields, "1", 16),
        component_svns=tuple(_integer(tcb, f"2.{i}", _MAX_SVN) for i in range(1, _COMPONENTS + 1)),
        pcesvn=_integer(tcb, "2.17", _MAX_PCESVN),
        cpusvn=_octets(tcb, "2.18", 16),
        pceid=_octets(fields, "3", 2),
        fmspc=_octets(fields, "4", 6),
        sgx_type=_number(_need(fields, "5", der.ENUMERATED), 2),
        platform_instance_id=None if platform is None else _octets(fields, "6", 16),
        dynamic_platform=_boolean(flags, "7.1"),
        cached_keys=_boolean(flags, "7.2"),
        smt_enabled=_boolean(flags, "7.3"),
    )


_Entry = tuple[int, bytes]


def _fields(content: bytes, prefix: str = "") -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for tag, value in der.elements(content):
        pair = der.elements(value) if tag == der.SEQUENCE else []
        if len(pair) != 2 or pair[0][0] != der.OID:  # noqa: PLR2004 - an OID and its value
            raise _refuse("an SGX field is a SEQUENCE of OID and value")
        oid = pair[0][1]
        tail = oid.removeprefix(_SGX_ARC)
        # Every arc below is less than 128, so one byte is one number.
        arc = ".".join(map(str, tail))
        if tail in (oid, b"") or not tail.isascii() or not arc.startswith(prefix):
            raise _refuse(f"OID {oid.hex()} belongs to the SGX arc")
        if arc in found:
            raise _refuse(f"field {arc} appears once")
        found[arc] = pair[1]
    return found


def _optional(fields: dict[str, _Entry], arc: str, tag: int) -> bytes | None:
    entry = fields.get(arc)
    if entry is None:
        return None
    if entry[0] != tag:
        raise _refuse(f"field {arc} has tag {tag}")
    return entry[1]


def _need(fields: dict[str, _Entry], arc: str, tag: int) -> bytes:
    value = _optional(fields, arc, tag)
    if value is None:
        raise _refuse(f"field {arc} is present")
    return value


def _octets(fields: dict[str, _Entry], arc: str, size: int) -> bytes:
    value = _need(fields, arc, der.OCTETS)
    if len(value) != size:
        raise _refuse(f"field {arc} has {size} bytes")
    return value


def _integer(fields: dict[str, _Entry], arc: str, maximum: int) -> int:
    return _number(_need(fields, arc, der.INTEGER), maximum)


def _number(value: bytes, maximum: int) -> int:
    number = int.from_bytes(value, "big", signed=True)
    padded = len(value) > 1 and value[0] == 0 and value[1] < 0x80  # noqa: PLR2004 - the sign bit
    if not value or padded or not 0 <= number <= maximum:
        raise _refuse(f"a number is minimal and at most {maximum}")
    return number


def _boolean(fields: dict[str, _Entry], arc: str) -> bool | None:
    value = _optional(fields, arc, der.BOOLEAN)
    if value is None:
        return None
    if value not in (b"\x00", b"\xff"):
        raise _refuse(f"field {arc} is a DER boolean")
    return value == b"\xff"


def _refuse(message: str) -> QuoteError:
    return QuoteError(Check.PCK_EXTENSION, message)
