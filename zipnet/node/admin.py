"""The admin socket of a node: a Unix socket that its own user, and whom it lists, may call.

Rows M5, L16. One call for each connection; what a call may do is in ``zipnet.access.verbs``, how it
is done in ``zipnet.node.admin_verbs``.

Rules:

1. The folder has mode 0700 and the socket 0600, both the node's own; a folder that others can
   enter, or that is somebody else's, is refused at start.
2. Besides, the kernel says who calls (``SO_PEERCRED``): whoever is neither the node's user nor
   listed is turned away before a byte of his is read, counted, and noted in the audit trail.
3. Requests are bounded in size, time and number. A call that fails says why in a stable word.
4. Every call that was let in is an entry of the audit trail, with the key ids of whoever signed for
   it; no token is ever written anywhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, Final, Protocol

from zipnet.access.capability import Capability, verify_capability
from zipnet.access.policy import Service
from zipnet.access.principal import PrincipalKind, local_principal
from zipnet.access.verbs import VERBS, authorize_verb
from zipnet.errors import AdmissionError, ConfigError, RemoteProtocolError, ZipnetError
from zipnet.node.request_log import SILENT, RequestLog
from zipnet.node.wall import Wall, WallParts
from zipnet.observe.log import get_logger
from zipnet.transport.dial import refusal_code
from zipnet.wire.admin import (
    LENGTH_BYTES,
    MAX_REQUEST_BYTES,
    AdminReply,
    AdminRequest,
    decode_request,
    encode_reply,
    length_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from zipnet.access.revoked import RevokedBook
    from zipnet.access.terms import AccessTerms
    from zipnet.node.audit import AuditTrail
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.ids import GroupId, PeerId
    from zipnet.settings.types import NodeSettings

__all__ = ["SOCKET_NAME", "AdminDesk", "AdminSocket", "AdminVerbs", "open_admin"]

SOCKET_NAME: Final = "admin.sock"
_FOLDER_MODE: Final = 0o700
_SOCKET_MODE: Final = 0o600
_MAX_CALLS: Final = 8
_READ_S: Final = 5.0
_CALL_S: Final = 30.0
_CREDENTIALS: Final = struct.Struct("3i")

_log = get_logger(__name__)


class AdminVerbs(Protocol):
    """What a node can be told to do; each returns facts for the caller."""

    async def status(self) -> dict[str, str]:
        """Say how the node is."""
        ...

    async def safe_mode(self) -> dict[str, str]:
        """Stop signing and serve readers only, until an operator leaves safe mode."""
        ...

    async def revoke(self, statement: bytes) -> dict[str, str]:
        """Put a signed revocation into the committee's log and wait until it counts here."""
        ...

    async def rotate(self, kind: str) -> dict[str, str]:
        """Begin to use a new key of a kind."""
        ...

    async def drain(self, *, on: bool) -> dict[str, str]:
        """Let clients and readers go and take none, or take them again."""
        ...

    async def export(self, what: str, offset: int) -> bytes:
        """Return the next bytes of what is asked for from ``offset`` on; none at its end."""
        ...

    async def shutdown(self) -> dict[str, str]:
        """End the process in good order."""
        ...


class AdminDesk:
    """Decides about calls, has them done, and writes them down.

    Args:
        verbs: What the node can do.
        terms: Whose capabilities count.
        group: The group they must be for.
        node: This node's peer id; a capability bound to a peer counts at that node's socket only.
        revoked: What was revoked.
        audit: Where calls are noted.
        wall: What stands before every call.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        verbs: AdminVerbs,
        *,
        terms: AccessTerms,
        group: GroupId,
        node: PeerId,
        revoked: RevokedBook,
        audit: AuditTrail,
        wall: Wall,
        clock: Callable[[], float],
    ) -> None:
        self._verbs = verbs
        self._terms = terms
        self._group = group
        self._node = node
        self._revoked = revoked
        self._audit = audit
        wall.require(VERBS)
        self._wall = wall
        self._clock = clock
        self._turn = asyncio.Lock()

    async def call(self, request: AdminRequest, uid: int) -> AdminReply:
        """Do what a request asks, if it may be asked."""
        signed: list[Capability] = []
        code = "done"
        caller = local_principal(PrincipalKind.OPERATOR, str(uid))

        async def run() -> AdminReply:
            for token in request.tokens:  # one by one: what verified is noted, whatever follows
                signed.extend([await self._verified(token)])
            authorize_verb(request.verb, signed, has_issuers=bool(self._terms.issuers))
            async with self._turn, asyncio.timeout(_CALL_S):
                return await self._do(request)

        try:
            if request.verb not in VERBS:
                authorize_verb(request.verb, (), has_issuers=bool(self._terms.issuers))
            return await self._wall.pass_through(caller, request.verb, 0, run)
        except TimeoutError:
            code = "timeout"
            return AdminReply(ok=False, code=code, text="it took too long; ask for the status")
        except ZipnetError as error:
            code = refusal_code(error)
            return AdminReply(ok=False, code=code, text=error.message_line)
        finally:
            self._note(request, signed, uid, code)

    async def _verified(self, token: bytes) -> Capability:
        capability = await asyncio.to_thread(
            verify_capability,
            token,
            issuers=self._terms.issuers,
            group=self._group,
            now_s=self._clock(),
            presenter=self._node,
        )
        if self._revoked.has_capability(capability):
            raise AdmissionError("the capability was revoked", code="capability_revoked")
        return capability

    async def _do(self, request: AdminRequest) -> AdminReply:
        verbs = self._verbs
        facts: dict[str, str] = {}
        match request.verb:
            case "status":
                facts = await verbs.status()
            case "safe-mode":
                facts = await verbs.safe_mode()
            case "revoke":
                facts = await verbs.revoke(request.statement)
            case "rotate":
                facts = await verbs.rotate(request.option)
            case "drain":
                if request.option not in {"on", "off"}:
                    raise AdmissionError("drain is on or off", code="bad_option")
                facts = await verbs.drain(on=request.option == "on")
            case "export":
                data = await verbs.export(request.option, request.offset)
                return AdminReply(ok=True, code="done", data=data)
            case "shutdown":
                facts = await verbs.shutdown()
            case _:
                raise AssertionError("the table of verbs and this one are the same")
        return AdminReply(ok=True, code="done", facts=facts)

    def _note(self, request: AdminRequest, signed: list[Capability], uid: int, code: str) -> None:
        verb = request.verb if request.verb in VERBS else "unknown"
        operators = ",".join(item.key_id for item in signed) or "none"
        self._audit.note(
            "admin_called", verb=verb, operator=operators, source=f"uid {uid}", reason=code
        )
        _log.info("admin_called", mode=verb, reason=code)


class AdminSocket:
    """Listens on a node's admin socket.

    Args:
        folder: Folder of the socket; made where there is none.
        uids: Users that may call, besides the node's own.
        desk: Decides about calls.
        metrics: Where callers turned away are counted.
        audit: Where they are noted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        uids: tuple[int, ...],
        desk: AdminDesk,
        metrics: NodeMetrics,
        audit: AuditTrail,
    ) -> None:
        self._folder = folder
        self._uids = frozenset({os.geteuid(), *uids})
        self._desk = desk
        self._metrics = metrics
        self._audit = audit
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def path(self) -> Path:
        """Where the socket is."""
        return self._folder / SOCKET_NAME

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: When the folder is open to others or the socket cannot be made.
        """
        try:
            listener = self._bind()
        except OSError as error:
            raise ConfigError(
                f"setting ADMIN: {self._folder}: {error.strerror}",
                hint="name a folder only the node's user can enter",
            ) from error
        self._server = await asyncio.start_unix_server(self._on_connection, sock=listener)

    def _bind(self) -> socket.socket:
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open(self._folder, flags)
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise ConfigError(
                    f"setting ADMIN: {self._folder} is open to others",
                    hint="name a folder for it alone, of mode 0700",
                )
            self._remove_old(folder)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                # By the open folder: a path of any length fits, and nobody swaps the folder.
                listener.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
                os.chmod(SOCKET_NAME, _SOCKET_MODE, dir_fd=folder)
                listener.listen(_MAX_CALLS)
                listener.settimeout(0)
            except BaseException:
                listener.close()
                raise
            return listener
        finally:
            os.close(folder)

    @staticmethod
    def _remove_old(folder: int) -> None:
        """Take away what an earlier life left; nothing but a socket."""
        try:
            old = os.stat(SOCKET_NAME, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(old.st_mode):
            raise ConfigError(f"setting ADMIN: {SOCKET_NAME} there is no socket")
        os.unlink(SOCKET_NAME, dir_fd=folder)

    async def close(self) -> None:
        """Stop listening, end calls that are under way, and remove the socket."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass  # the caller went away
        finally:
            self._calls.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _uid_of(writer)
        if uid not in self._uids:
            self._deny("uid")
            return
        if len(self._calls) > _MAX_CALLS:
            self._deny("busy")
            return
        try:
            async with asyncio.timeout(_READ_S):
                head = await reader.readexactly(LENGTH_BYTES)
                length = length_of(head, MAX_REQUEST_BYTES)
                request = decode_request(await reader.readexactly(length))
        except (TimeoutError, RemoteProtocolError):
            self._deny("malformed")
            return
        writer.write(encode_reply(await self._desk.call(request, uid)))
        await writer.drain()

    def _deny(self, reason: str) -> None:
        self._metrics.uds_denied.inc(reason)
        self._audit.refused(f"admin_{reason}")


def _uid_of(writer: asyncio.StreamWriter) -> int:
    found: socket.socket = writer.get_extra_info("socket")
    credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return int(uid)


async def open_admin(
    stack: AsyncExitStack,
    settings: NodeSettings,
    verbs: AdminVerbs,
    *,
    revoked: RevokedBook,
    audit: AuditTrail,
    metrics: NodeMetrics,
    requests: RequestLog = SILENT,
) -> None:
    """Listen on a node's admin socket, where its settings name one, until the stack is closed.

    Raises:
        ConfigError: When the folder is open to others or the socket cannot be made.
    """
    if settings.admin is None:
        return
    desk = AdminDesk(
        verbs,
        terms=settings.access,
        group=settings.descriptor.group,
        node=settings.identity.peer_id,
        revoked=revoked,
        audit=audit,
        wall=Wall(Service.ADMIN, WallParts(metrics, requests=requests)),
        clock=time.time,
    )
    admin = AdminSocket(
        settings.admin, uids=settings.admin_uids, desk=desk, metrics=metrics, audit=audit
    )
    await admin.start()
    stack.push_async_callback(admin.close)
