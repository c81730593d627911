"""The admin socket by real sockets and real users: who is let in, and who may do what (row M5)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from zipnet.access.capability import CapabilityRole
from zipnet.access.minting import attenuate_capability, issuer_key, mint_capability
from zipnet.access.policy import Service
from zipnet.access.revoked import RevokedBook
from zipnet.access.terms import AccessTerms
from zipnet.access.verbs import VERBS
from zipnet.errors import AdmissionError, ConfigError
from zipnet.node.admin import SOCKET_NAME, AdminDesk, AdminSocket
from zipnet.node.admin_client import call_admin
from zipnet.node.audit import AuditTrail
from zipnet.node.wall import Wall, WallParts
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.ids import GroupId, PeerId
from zipnet.protocol.revocation import Revocation, RevokedKind
from zipnet.protocol.secret import Secret
from zipnet.wire.admin import AdminReply, AdminRequest, encode_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from zipnet.ledger.audit import Value

GROUP = GroupId(bytes(range(32)))
NODE = PeerId(bytes(range(32, 64)))
SEED = bytes(range(1, 33))
NOW = 1_800_000_000
NOBODY = 65534
WRITE, READ = CapabilityRole.ADMIN_WRITE, CapabilityRole.ADMIN_READ


def issuer() -> bytes:
    with Secret(bytearray(SEED)) as secret:
        return issuer_key(secret)


def mint(*roles: CapabilityRole, peer: PeerId | None = None) -> bytes:
    with Secret(bytearray(SEED)) as secret:
        return mint_capability(
            secret, group=GROUP, roles=roles, now_s=NOW, lifetime_s=60, peer=peer
        )


class Trail(AuditTrail):
    """Keeps what is noted."""

    def __init__(self) -> None:
        super().__init__(None)
        self.notes: list[tuple[str, Mapping[str, Value]]] = []
        self.denied: list[str] = []

    def note(self, event: str, **fields: Value) -> None:
        self.notes.append((event, fields))

    def refused(self, reason: str) -> None:
        self.denied.append(reason)


@dataclass
class Verbs:
    """A node that remembers what it was told."""

    done: list[str] = field(default_factory=list)

    async def status(self) -> dict[str, str]:
        return self._did("status")

    async def safe_mode(self) -> dict[str, str]:
        return self._did("safe-mode")

    async def revoke(self, statement: bytes) -> dict[str, str]:
        return self._did(f"revoke {statement!r}")

    async def rotate(self, kind: str) -> dict[str, str]:
        raise AdmissionError(f"no {kind} here", code="not_rotatable")

    async def drain(self, *, on: bool) -> dict[str, str]:
        return self._did(f"drain {on}")

    async def export(self, what: str, offset: int) -> bytes:
        self._did(f"export {what} {offset}")
        return b"line\n"

    async def shutdown(self) -> dict[str, str]:
        return self._did("shutdown")

    def _did(self, what: str) -> dict[str, str]:
        self.done.append(what)
        return {"did": what}


class World:
    """One listening admin socket."""

    def __init__(
        self, folder: Path, *, with_issuer: bool = True, uids: tuple[int, ...] = ()
    ) -> None:
        self.folder = folder
        self.verbs, self.trail, self.book = Verbs(), Trail(), RevokedBook()
        self.now = float(NOW)
        self.metrics = NodeMetrics(
            CollectorRegistry(), instance="acme.test", role="server", version="0", commit="x",
            posture="development", attestation="off",
        )  # fmt: skip
        terms = AccessTerms((issuer(),) if with_issuer else ())
        desk = AdminDesk(
            self.verbs, terms=terms, group=GROUP, node=NODE, revoked=self.book, audit=self.trail,
            wall=Wall(Service.ADMIN, WallParts(self.metrics)), clock=lambda: self.now,
        )  # fmt: skip
        self.socket = AdminSocket(
            folder, uids=uids, desk=desk, metrics=self.metrics, audit=self.trail
        )

    async def call(self, verb: str, *tokens: bytes, option: str = "") -> AdminReply:
        request = AdminRequest(verb=verb, option=option, tokens=list(tokens), statement=b"s")
        return await asyncio.to_thread(call_admin, self.folder, request)

    def denials(self, reason: str) -> bool:
        text = generate_latest(self.metrics.registry).decode()
        return f'zipnet_uds_denied_total{{reason="{reason}"' in text


@contextlib.asynccontextmanager
async def listening(
    folder: Path, *, with_issuer: bool = True, uids: tuple[int, ...] = ()
) -> AsyncIterator[World]:
    world = World(folder, with_issuer=with_issuer, uids=uids)
    await world.socket.start()
    try:
        yield world
    finally:
        await world.socket.close()


@pytest.mark.requirement("M5")
async def test_folder_and_socket_are_the_nodes_own_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40) / "admin"  # longer than a socket's address may be
    old = os.umask(0)
    try:
        async with listening(folder) as world:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((folder / SOCKET_NAME).stat().st_mode) == 0o600
            assert (await world.call("status", mint(READ))).ok
    finally:
        os.umask(old)
    assert not (folder / SOCKET_NAME).exists()


@pytest.mark.requirement("M5")
async def test_a_folder_that_is_open_to_others_is_refused_and_nothing_listens(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "admin"
    folder.mkdir(mode=0o700)
    for mode in (0o750, 0o701, 0o777):
        folder.chmod(mode)
        with pytest.raises(ConfigError, match="open to others"):
            await World(folder).socket.start()
        assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    (folder / SOCKET_NAME).write_text("somebody's file")
    with pytest.raises(ConfigError, match="no socket"):
        await World(folder).socket.start()
    assert (folder / SOCKET_NAME).read_text() == "somebody's file"
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(ConfigError):
        await World(link).socket.start()


async def test_what_an_earlier_life_left_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "admin"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / SOCKET_NAME))
    async with listening(folder) as world:
        assert (await world.call("status", mint(READ))).ok


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder every user can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def _as_nobody(path: Path) -> int:
    """Call a socket as another user, in a child; returns how many bytes came back, 255 for none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs nothing of asyncio
        child = os.fork()
    if child == 0:
        code = 254
        with contextlib.suppress(BaseException):
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(10)
                try:
                    link.connect(str(path))
                    link.sendall(encode_request(AdminRequest(verb="status")))
                    code = min(len(link.recv(64)), 253)
                except PermissionError:
                    code = 255
                except OSError:
                    code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.requirement("M5")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_user_is_turned_away_before_a_byte_is_read(open_folder: Path) -> None:
    folder = open_folder / "admin"
    async with listening(folder) as world:
        path = folder / SOCKET_NAME
        assert await asyncio.to_thread(_as_nobody, path) == 255
        # Even where file modes no longer keep anybody out, the kernel's word does.
        folder.chmod(0o755)
        path.chmod(0o666)
        assert await asyncio.to_thread(_as_nobody, path) == 0
        assert world.verbs.done == []
        assert world.denials("uid")
        assert world.trail.denied == ["admin_uid"]
    listed = open_folder / "listed"
    async with listening(listed, with_issuer=False, uids=(NOBODY,)) as world:
        listed.chmod(0o755)
        (listed / SOCKET_NAME).chmod(0o666)
        assert 0 < await asyncio.to_thread(_as_nobody, listed / SOCKET_NAME) < 254
        assert world.verbs.done == ["status"]


@pytest.mark.requirement("L16")
async def test_two_tokens_of_one_operator_count_as_one(tmp_path: Path) -> None:
    async with listening(tmp_path / "admin") as world:
        first, second = mint(WRITE), mint(WRITE)
        own = attenuate_capability(first, issuer(), expires_s=NOW + 30)
        for verb in ("safe-mode", "revoke", "shutdown"):
            for tokens in ((first,), (first, first), (first, own), (first, mint(READ))):
                assert (await world.call(verb, *tokens)).code == "second_operator_missing"
        assert world.verbs.done == []
        for verb in ("safe-mode", "revoke", "shutdown"):
            assert (await world.call(verb, first, second)).ok
        assert world.verbs.done == ["safe-mode", "revoke b's'", "shutdown"]


@pytest.mark.requirement("L16")
async def test_a_call_without_the_right_capability_does_nothing_and_is_noted(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path / "admin") as world:
        publish = mint(CapabilityRole.PUBLISH)
        bound = mint(WRITE, peer=PeerId(bytes(32)))
        for verb in VERBS:
            assert (await world.call(verb)).code == "capability_missing"
            assert (await world.call(verb, publish)).code == "capability_missing"
            assert (await world.call(verb, bound)).code == "capability_presenter"
            assert (await world.call(verb, b"garbage")).code == "capability_issuer"
        assert (await world.call("format-disk", mint(WRITE))).code == "unknown_verb"
        token = mint(WRITE)
        assert (await world.call("drain", token, option="sideways")).code == "bad_option"
        assert (await world.call("drain", token, option="on")).facts == {"did": "drain True"}
        export = await world.call("export", mint(CapabilityRole.ARCHIVE), option="audit")
        assert export.data == b"line\n"
        assert (await world.call("rotate", token, mint(WRITE))).code == "not_rotatable"
        world.now = NOW + 61.0
        assert (await world.call("status", token)).code == "capability_expired"
        events = {event for event, _ in world.trail.notes}
        assert events == {"admin_called"}
        assert len(world.trail.notes) == 4 * len(VERBS) + 6
        noted = repr(world.trail.notes)
        assert all(secret.hex() not in noted for secret in (token, publish, bound))


async def test_a_revoked_capability_opens_nothing(tmp_path: Path) -> None:
    from zipnet.access.capability import inspect_capability

    async with listening(tmp_path / "admin") as world:
        token = mint(READ)
        less = attenuate_capability(token, issuer(), expires_s=NOW + 30)
        assert (await world.call("status", less)).ok
        target = inspect_capability(token).ids[0]
        world.book.add(Revocation(RevokedKind.TOKEN, target, NOW, bytes(32)), b"statement")
        for one in (token, less):
            assert (await world.call("status", one)).code == "capability_revoked"


@pytest.mark.requirement("L16")
async def test_a_capability_bound_to_a_node_counts_at_that_nodes_socket_only(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path / "admin") as world:
        assert (await world.call("status", mint(READ, peer=NODE))).ok
        elsewhere = mint(READ, peer=PeerId(bytes(32)))
        assert (await world.call("status", elsewhere)).code == "capability_presenter"


async def test_a_node_without_issuers_shows_itself_and_changes_nothing(tmp_path: Path) -> None:
    async with listening(tmp_path / "admin", with_issuer=False) as world:
        assert (await world.call("status")).ok
        for verb in ("drain", "revoke", "rotate", "safe-mode", "shutdown"):
            assert (await world.call(verb)).code == "no_issuers"
        assert world.verbs.done == ["status"]


@pytest.mark.parametrize(
    "sent",
    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\4\xc1\xc1\xc1\xc1", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["nothing", "endless", "garbage", "http"],
)
async def test_garbage_ends_the_call_and_nothing_else(tmp_path: Path, sent: bytes) -> None:
    async with listening(tmp_path / "admin") as world:
        reader, writer = await asyncio.open_unix_connection(str(world.socket.path))
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        assert world.denials("malformed")
        assert (await world.call("status", mint(READ))).ok


def test_where_no_node_listens_the_caller_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no node listens"):
        call_admin(tmp_path, AdminRequest(verb="status"))
    with pytest.raises(ConfigError):
        call_admin(tmp_path / "missing", AdminRequest(verb="status"))
