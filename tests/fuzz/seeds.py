"""Well-formed inputs to fuzz from, made by the code that writes them."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sim.disk import Disk
from tdx.emulator import Emulator
from tdx.policy import Policy
from tdx.policy.toml import dump_policy
from tests.fuzz.fuzz_stored import COMMITTEE, GROUP, LOG_KEYS, NOW_S, OWNER
from tests.harness.committee import make_identity
from zipnet.access.capability import CapabilityRole
from zipnet.access.minting import (
    attenuate_capability,
    issuer_key,
    mint_capability,
)
from zipnet.access.tokentext import format_token
from zipnet.consensus.members import Members, Snapshot
from zipnet.consensus.messages import AppendEntries, Entry, RequestVote, encode_message
from zipnet.ledger.checkpoint import LogCheckpoint, origin_of, sign_checkpoint
from zipnet.ledger.ranges import RangeHead, RangeItem, RangeTree, write_range
from zipnet.machines.bookmark import Bookmark
from zipnet.machines.committee import CommitteeState
from zipnet.machines.committee_snapshot import encode_state
from zipnet.protocol.ids import Digest, ServerIndex
from zipnet.protocol.kem import KemKeyPair
from zipnet.protocol.revocation import RevokedKind, sign_revocation, sign_warrant
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.settings.publicfile import PublicFile, format_public_file
from zipnet.settings.tokencustody import TokenPlace, format_key_file
from zipnet.storage.audit import AuditLog
from zipnet.storage.custody import CustodyFiles, KeyCustody
from zipnet.storage.journal import FileJournal
from zipnet.storage.records import RecordLog
from zipnet.storage.sealedlog import seal
from zipnet.transport.certificate import node_certificate
from zipnet.wire.admin import (
    LENGTH_BYTES,
    AdminReply,
    AdminRequest,
    encode_reply,
    encode_request,
)

if TYPE_CHECKING:
    from zipnet.protocol.identity import Identity

__all__ = ["make_seeds"]

_NOW = 1_900_000_000


def _token_key_file() -> bytes:
    place = TokenPlace(Path("/usr/lib/token.so"), "operators", "key")
    return format_key_file(place, bytes(range(32)), "operator.key.mldsa", "pin").encode()


def make_seeds() -> dict[str, bytes]:
    """Return one good input for each parser that has one, by the parser's name."""
    members = Members.founding((11, 12, 13))
    emulator = Emulator(now=_NOW)
    bundle = emulator.bundle()
    identity = make_identity("fuzz")
    return {
        "consensus message": encode_message(
            AppendEntries(3, 2, 1, 2, [Entry(3, b"\x01\x04command")]), sender=11
        ),
        "consensus vote": encode_message(RequestVote(3, 2, 1), sender=12),
        "consensus members": members.encode(),
        "consensus snapshot": Snapshot(9, 3, 7, members, b"state").encode(),
        "committee state": encode_state(CommitteeState(COMMITTEE.descriptor)),
        "journal": _journal(),
        "record log": _records(),
        "custody": _custody(),
        "range": _range(),
        "checkpoint": _checkpoint(),
        "sealed log": b"".join(seal([b"a line\n"], LOG_KEYS.public, random.Random(1).randbytes)),
        "audit trail": _audit(identity),
        **_access(),
        "bookmark": Bookmark(7, Digest(bytes(32)), 3).to_text().encode(),
        "secret": format_secret_text(Secret(os.urandom(32))).encode(),
        "public identity": _public(identity),
        "environment file": b'# of the unit\nZIPNET_LISTEN="127.0.0.1:1"\nHOME=/x\n',
        "token key file": _token_key_file(),
        "settings": b'instance = "acme.test"\nlisten = "127.0.0.1:1"\ncadence = 3\n',
        "quote": emulator.quote(bytes(64)),
        "quote v5": emulator.quote(bytes(64), version=5),
        "collateral": bundle.to_json().encode(),
        "tcb info": bundle.tcb_info.encode(),
        "qe identity": bundle.qe_identity.encode(),
        "policy": dump_policy(Policy().require_mrtd(bytes(48))).encode(),
    }


def _access() -> dict[str, bytes]:
    secret = Secret(bytearray(range(1, 33)))
    key = issuer_key(secret)
    roles = (CapabilityRole.PUBLISH, CapabilityRole.READ)
    token = mint_capability(secret, group=GROUP, roles=roles, now_s=NOW_S, lifetime_s=3600)
    less = attenuate_capability(token, key, expires_s=NOW_S + 60)
    deputy = make_identity("deputy")
    warrant = sign_warrant(GROUP, deputy.public.ed25519, NOW_S * 1000, COMMITTEE.operator)
    statement = sign_revocation(GROUP, RevokedKind.PEER, bytes(32), 1, deputy, warrant)
    return {
        "token": token,
        "token of an issuer": less,
        "token text": format_token(less, key).encode(),
        "revocation": statement,
        "warrant": warrant,
        "admin request": encode_request(AdminRequest(verb="revoke", tokens=[less]))[LENGTH_BYTES:],
        "admin reply": encode_reply(AdminReply(ok=True, code="done"))[LENGTH_BYTES:],
    }


def _journal() -> bytes:
    disk = Disk(random.Random(1))
    journal = FileJournal("j", identity=OWNER, files=disk)
    journal.append_group([b"one", b"", b"three"])
    journal.close()
    return disk.peek("j")


def _records() -> bytes:
    with tempfile.TemporaryDirectory(prefix="seed-") as folder:
        log = RecordLog(Path(folder), group=COMMITTEE.descriptor.group)
        for sequence, data in enumerate((b"first record", b"second record")):
            log.append(sequence, data)
        log.close()
        (file,) = Path(folder).glob("records-*.log")
        return file.read_bytes()


def _range() -> bytes:
    tree = RangeTree([bytes([n]) * 32 for n in range(5)])
    head = RangeHead(GROUP, 1, 2, tree.size, tree.root())
    return b"".join(write_range(head, [RangeItem(n, b"r", tree.path(n)) for n in (1, 2)]))


def _checkpoint() -> bytes:
    trusted = COMMITTEE.descriptor
    checkpoint = LogCheckpoint(origin_of(trusted), 3, bytes(range(32)))
    return sign_checkpoint(checkpoint, ServerIndex(0), COMMITTEE.identities[0]).encode()


def _custody() -> bytes:
    with tempfile.TemporaryDirectory(prefix="seed-") as folder:
        files = CustodyFiles(Path(folder))
        custody = KeyCustody(files, group=COMMITTEE.descriptor.group, max_skip_rounds=1000)
        seed = Secret(os.urandom(32))
        assert KemKeyPair.from_seed(seed).public
        custody.add_kem(7, seed, Digest(bytes(32)))
        custody.close()
        again = CustodyFiles(Path(folder))
        state = again.load()
        again.close()
        assert state is not None
        return bytes(state)


def _audit(identity: Identity) -> bytes:
    with tempfile.TemporaryDirectory(prefix="seed-") as folder:
        path = Path(folder) / "audit.log"
        trail = AuditLog(path, identity=identity, wall=lambda: float(_NOW))
        trail.record("node_started", version="1")
        trail.close()
        return path.read_bytes()


def _public(identity: Identity) -> bytes:
    certificate = node_certificate(identity.ed25519_private_key()).der
    return format_public_file(PublicFile("node", identity.public, certificate)).encode()
