"""The library's two outlets, replaced: where its messages go, and where its commands wait.

The library speaks in dictionaries; :mod:`zipnet.consensus.messages` has typed messages. Translation
happens here, and a dictionary of any kind that is not expected ends in
:class:`~zipnet.errors.GuardError`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pysyncobj.transport import Transport

from zipnet.consensus.messages import Message, RequestVote, Submit, SubmitReply, Vote
from zipnet.errors import GuardError

if TYPE_CHECKING:
    from pysyncobj.node import Node

__all__ = ["QUEUE_LENGTH", "GatedQueue", "Peers", "from_library", "to_library"]

#: Commands that may wait at one member; more are refused, which their proposer learns at once.
QUEUE_LENGTH: Final = 64


class Peers(Transport):  # type: ignore[misc]  # the library has no types
    """The library's transport interface: hands every message to ``send`` in our form."""

    def __init__(self, send: Callable[[Node, Message], None], term: Callable[[], int]) -> None:
        super().__init__(None, None, [])
        self._collect = send
        self._term = term

    @property
    def ready(self) -> bool:
        """True: there is nothing to bind."""
        return True

    def addNode(self, *_: object) -> None:  # noqa: N802 - the library's name
        """Refuse: members are fixed."""
        raise GuardError("the consensus engine was about to add a member")

    def dropNode(self, *_: object) -> None:  # noqa: N802
        """Refuse: members are fixed."""
        raise GuardError("the consensus engine was about to drop a member")

    def destroy(self) -> None:
        """Nothing is open."""

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Collect one message of the library."""
        self._collect(node, from_library(message, self._term()))
        return True


class GatedQueue:
    """The library's command queue, which gives nothing while ``has_room`` says no."""

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._waiting: deque[tuple[bytes, object]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put_nowait(self, item: tuple[bytes, object]) -> None:
        """Add a command and its callback; raise :class:`queue.Full` beyond the limit."""
        if len(self._waiting) >= QUEUE_LENGTH:
            raise queue.Full
        self._waiting.append(item)

    def get_nowait(self) -> tuple[bytes, object]:
        """Take the oldest command; raise :class:`queue.Empty` when none may be taken now."""
        if not self._waiting or not self._has_room():
            raise queue.Empty
        return self._waiting.popleft()


def from_library(message: dict[str, Any], term: int) -> Message:
    """Return the library's message, sent in ``term``, in our form; GuardError if unexpected."""
    match message["type"]:
        case "request_vote":
            return RequestVote(message["term"], message["last_log_index"], message["last_log_term"])
        case "response_vote":
            return Vote(message["term"])
        case "apply_command":
            return Submit(message["request_id"], term, message["command"][1:])
        case "apply_command_response":
            error = message.get("error", 0)
            index, term = message.get("log_idx", 1), message.get("log_term", 0)
            return SubmitReply(message["request_id"], error, index, term)
        case other:
            raise GuardError(f"the consensus library was about to send {other!r}")


def to_library(message: RequestVote | SubmitReply) -> dict[str, Any]:
    """Return our message in the library's form, for the kinds the library still handles."""
    match message:
        case RequestVote():
            return {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_log_index,
                "last_log_term": message.last_log_term,
            }
        case SubmitReply():
            reply: dict[str, Any] = {
                "type": "apply_command_response",
                "request_id": message.request_id,
            }
            if message.error:
                return reply | {"error": message.error}
            return reply | {"log_idx": message.log_index, "log_term": message.log_term}
