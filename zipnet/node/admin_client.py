"""Calling a node's admin socket, for the command line: one request, one reply, blocking."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, RemoteProtocolError, TransportError
from zipnet.node.admin import SOCKET_NAME
from zipnet.wire.admin import (
    LENGTH_BYTES,
    MAX_REPLY_BYTES,
    AdminReply,
    AdminRequest,
    decode_reply,
    encode_request,
    length_of,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["call_admin"]

_DEADLINE_S: Final = 40.0


def call_admin(folder: Path, request: AdminRequest) -> AdminReply:
    """Send a request to the node whose admin socket is in ``folder``.

    Raises:
        ConfigError: When there is no socket there, or this user may not call it.
        TransportError: When the node ended the call or did not answer.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}", hint="name the node's admin folder, as its user"
        ) from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_DEADLINE_S)
            try:
                link.connect(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
            except OSError as error:
                raise ConfigError(
                    f"no node listens in {folder}: {error.strerror}",
                    hint="start the node, or name its admin folder",
                ) from error
            return _exchange(link, request)
    finally:
        os.close(handle)


def _exchange(link: socket.socket, request: AdminRequest) -> AdminReply:
    try:
        link.sendall(encode_request(request))
        length = length_of(_exactly(link, LENGTH_BYTES), MAX_REPLY_BYTES)
        return decode_reply(_exactly(link, length))
    except (OSError, EOFError, RemoteProtocolError) as error:
        raise TransportError(
            "the node ended the call", hint="it takes calls of its own user and of ADMIN_UIDS only"
        ) from error


def _exactly(link: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = link.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
