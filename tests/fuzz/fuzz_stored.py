"""Coverage-guided fuzzing of what comes from disks, operators and platforms.

``python -m tests.fuzz.fuzz_stored [libFuzzer options] [corpus]`` runs until it finds something;
``tests/fuzz/test_stored_fuzz.py`` runs it briefly with the suite. The first byte of an input picks
the parser, the rest is what it parses. Journals and logs are opened on a disk in memory that holds
the input as their file.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["zipnet", "tdx"]):
        import zipnet.consensus.messages
        import zipnet.machines.committee_snapshot
        import zipnet.storage.journal  # noqa: F401 - what is imported below reports its branches

from sim.disk import Disk
from tdx.collateral import Bundle
from tdx.collateral.qe_identity import parse_qe_identity
from tdx.collateral.tcb_info import parse_tcb_info
from tdx.errors import TdxError
from tdx.measure.tdvf import parse_tdvf
from tdx.policy.toml import load_policy
from tdx.quote import parse_quote
from tdx.quote.pck import parse_pck_extension
from tdx.quote.qgs import decode_message as decode_qgs
from tdx.quote.tdreport import parse_tdreport
from tdx.replay.ccel import parse_ccel
from tests.harness.committee import HarnessCommittee
from zipnet.access.capability import Capability, inspect_capability, verify_capability
from zipnet.access.minting import issuer_key
from zipnet.access.tokentext import parse_token
from zipnet.admission.evidence import decode_evidence
from zipnet.consensus.members import decode_members, decode_snapshot
from zipnet.consensus.messages import decode_message
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    RemoteProtocolError,
    StorageError,
    VerificationError,
)
from zipnet.ledger.audit import AuditVerifier
from zipnet.ledger.checkpoint import open_checkpoint
from zipnet.ledger.ranges import read_range
from zipnet.machines.bookmark import Bookmark
from zipnet.machines.committee_snapshot import decode_state
from zipnet.protocol.kem import KemKeyPair
from zipnet.protocol.revocation import open_revocation, open_warrant
from zipnet.protocol.secret import Secret, parse_secret_text
from zipnet.settings.envfile import parse_env
from zipnet.settings.publicfile import parse_public
from zipnet.settings.sources import parse_table
from zipnet.settings.tokencustody import TokenCustody
from zipnet.storage.compacting import CompactingFileJournal
from zipnet.storage.custody import KeyCustody
from zipnet.storage.journal import FileJournal
from zipnet.storage.records import RecordLog
from zipnet.storage.sealedlog import open_sealed
from zipnet.wire.admin import decode_reply, decode_request

if TYPE_CHECKING:
    from collections.abc import Callable

COMMITTEE: Final = HarnessCommittee()
OWNER: Final = bytes(range(32))
SEATS: Final = 3
GROUP: Final = COMMITTEE.descriptor.group
OPERATOR: Final = COMMITTEE.operator.public.ed25519
ISSUER: Final = issuer_key(Secret(bytearray(range(1, 33))))
LOG_KEYS: Final = KemKeyPair.from_seed(Secret(bytes(range(32))))
NOW_S: Final = 1_900_000_000
OUTSIDE: Final = (
    AdmissionError,
    RemoteProtocolError,
    VerificationError,
    ConfigError,
    StorageError,
    TdxError,
)


def _disk(path: str, data: bytes) -> Disk:
    disk = Disk(random.Random(1))
    handle = disk.open(path)
    handle.write(0, data)
    handle.sync()
    handle.sync_folder()
    handle.close()
    return disk


def open_journal(data: bytes) -> tuple[bytes, ...]:
    """Return the entries of a journal whose file these bytes are."""
    journal = FileJournal("j", identity=OWNER, files=_disk("j", data))
    found = tuple(journal.entries())
    journal.close()
    return found


def open_compacting(data: bytes) -> tuple[bytes | None, tuple[bytes, ...]]:
    """Return snapshot and entries of a compacting journal; the input is split over its files."""
    cut = len(data) // 2
    disk = _disk("c.a.snapshot", data[:cut])
    handle = disk.open("c.a.journal")
    handle.write(0, data[cut:])
    handle.close()
    journal = CompactingFileJournal("c", identity=OWNER, files=disk)
    found = (journal.snapshot(), tuple(journal.entries()))
    journal.close()
    return found


def open_records(data: bytes) -> int:
    """Return how many records a log whose only segment these bytes are has."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        (Path(folder) / f"records-{0:012d}.log").write_bytes(data)
        log = RecordLog(Path(folder), group=COMMITTEE.descriptor.group)
        found = log.next_sequence
        log.close()
    return found


class _Kept:
    """Custody whose stored state is given."""

    durable = False

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)

    def load(self) -> bytearray | None:
        return self._data or None

    def store(self, data: bytearray) -> None:
        raise AssertionError(f"{len(data)} bytes written while reading")

    def close(self) -> None:
        self._data.clear()


def open_custody(data: bytes) -> None:
    """Load key custody from a stored state."""
    group = COMMITTEE.descriptor.group
    KeyCustody(_Kept(data), group=group, max_skip_rounds=1000).close()


def _capability(data: bytes) -> Capability:
    return verify_capability(data, issuers=(ISSUER,), group=GROUP, now_s=NOW_S, presenter=None)


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    "consensus message": decode_message,
    "consensus members": lambda data: decode_members(data, size=SEATS),
    "consensus snapshot": lambda data: decode_snapshot(data, size=SEATS),
    "committee state": lambda data: decode_state(data, COMMITTEE.descriptor),
    "journal": open_journal,
    "compacting journal": open_compacting,
    "record log": open_records,
    "custody": open_custody,
    "audit trail": lambda data: AuditVerifier().read(data.splitlines(keepends=True)),
    "evidence": decode_evidence,
    "bookmark": _text(Bookmark.from_text),
    "secret": _text(lambda text: parse_secret_text(text, what="fuzz")),
    "public identity": lambda data: parse_public(Path("p"), data, kind="node"),
    "settings": lambda data: parse_table(Path("s"), data),
    "quote": parse_quote,
    "td report": parse_tdreport,
    "pck extension": parse_pck_extension,
    "collateral": Bundle.from_json,
    "tcb info": _text(parse_tcb_info),
    "qe identity": _text(parse_qe_identity),
    "policy": _text(load_policy),
    "event log": parse_ccel,
    "qgs": decode_qgs,
    "firmware": parse_tdvf,
    "token": inspect_capability,
    "token of an issuer": _capability,
    "token text": _text(parse_token),
    "revocation": lambda data: open_revocation(data, GROUP, OPERATOR),
    "warrant": lambda data: open_warrant(data, GROUP, OPERATOR),
    "admin request": decode_request,
    "admin reply": decode_reply,
    "checkpoint": lambda data: open_checkpoint(data, COMMITTEE.descriptor),
    "sealed log": lambda data: list(open_sealed(io.BytesIO(data).read, LOG_KEYS)),
    "range": lambda data: list(read_range(data.splitlines(keepends=True))[1]),
    "environment file": lambda data: parse_env(Path("e"), data),
    "token key file": lambda data: TokenCustody.from_file(
        Path("k"), data, what="fuzz", ask_pin=None
    ),
}
_LIST: Final = list(PARSERS.values())


def one_input(data: bytes) -> None:
    """Fuzz target: anything but the typed errors of outside bytes is a finding."""
    if not data:
        return
    try:
        _LIST[data[0] % len(_LIST)](data[1:])
    except OUTSIDE:
        return


def main() -> None:
    """Run the fuzzer with the command line's options."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
