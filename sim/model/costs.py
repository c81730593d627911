"""What work costs on a processor, in seconds: constants in a file, never measured during a run.

``zipnet-sim calibrate`` measures them on this machine and writes the file; the one that is shipped
says on what it was measured. A run reads the file and nothing else, so it repeats exactly.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

import msgspec

from zipnet.errors import ConfigError

__all__ = ["Costs", "load_costs", "write_costs"]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one core.

    Attributes:
        measured_on: What they were measured on, for people.
        ed25519_sign: One signature.
        ed25519_verify: One verification.
        hybrid_sign: Ed25519 and ML-DSA-65.
        hybrid_verify: Ed25519 and ML-DSA-65.
        encapsulate: X-Wing, for one server.
        decapsulate: X-Wing, from the seed.
        chain_step: One step of a chain.
        pad_key: One pad key.
        pad_fixed: Setting up one pad.
        pad_byte: One byte of pad.
        digest_byte: BLAKE3 of one byte.
        xor_byte: XOR of one byte.
        slot_fixed: Writing or reading one slot.
        fold_fixed: What an aggregator does about an envelope besides signature, digest and XOR.
        fsync: Making something durable.
        message_fixed: Sending or receiving one message over TLS from asyncio, one end.
        message_byte: One byte of it.
    """

    measured_on: str
    ed25519_sign: float
    ed25519_verify: float
    hybrid_sign: float
    hybrid_verify: float
    encapsulate: float
    decapsulate: float
    chain_step: float
    pad_key: float
    pad_fixed: float
    pad_byte: float
    digest_byte: float
    xor_byte: float
    slot_fixed: float
    fold_fixed: float
    fsync: float
    message_fixed: float
    message_byte: float

    def pads(self, count: int, body_bytes: int) -> float:
        """Return the cost of that many pads over a vector."""
        return count * (self.pad_key + self.pad_fixed + self.pad_byte * body_bytes)

    def seal(self, servers: int, body_bytes: int, slots: int, servers_steps: int) -> float:
        """Return the cost of a client's envelope: slots, pads, digest, signature, chain steps."""
        return (
            slots * self.slot_fixed
            + self.pads(servers, body_bytes)
            + servers_steps * self.chain_step
            + self.digest_byte * body_bytes
            + self.ed25519_sign
        )

    def admit(self, body_bytes: int) -> float:
        """Return the cost of an envelope at an aggregator, which hashes the body twice."""
        each_byte = 2 * self.digest_byte + self.xor_byte
        return self.fold_fixed + self.ed25519_verify + each_byte * body_bytes

    def assemble(self, servers: int, body_bytes: int, slots: int) -> float:
        """Return the cost of a record at a server: XOR, slots, hash, signature."""
        each_byte = servers * (self.xor_byte + self.digest_byte) + self.digest_byte
        return each_byte * body_bytes + slots * self.slot_fixed + self.hybrid_sign

    def verify_record(self, servers: int, body_bytes: int, slots: int) -> float:
        """Return the cost of a record at a reader."""
        hashed = self.digest_byte * body_bytes + slots * self.slot_fixed
        return servers * self.hybrid_verify + hashed


def load_costs(path: Path | None = None) -> Costs:
    """Read a file of costs; the shipped one unless told otherwise.

    Raises:
        ConfigError: When it cannot be read.
    """
    try:
        if path is None:
            text = resources.files("sim.model").joinpath("costs.toml").read_text()
        else:
            text = path.read_text()
        return msgspec.convert(tomllib.loads(text), Costs, strict=False)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"costs cannot be read: {error}", hint="zipnet-sim calibrate") from error


def write_costs(costs: Costs) -> str:
    """Lay costs out as TOML."""
    lines = ["# Seconds of one core; made by `zipnet-sim calibrate`."]
    values = asdict(costs)
    for item in fields(costs):
        value = values[item.name]
        lines.append(
            f'{item.name} = "{value}"' if item.type == "str" else f"{item.name} = {value:.3e}"
        )
    return "\n".join([*lines, ""])
