"""``POST /v1/publish``: publishing for somebody else, and what that costs them.

Rules:

1. The gateway knows who asked: nobody is anonymous towards its operator, and answers say so.
2. Only this machine may ask, unless the operator said otherwise by name.
3. A page of another origin may not ask through the visitor's browser: the content type must be
   JSON, and an ``Origin`` that is given must be this gateway's own.
4. Outcomes keep their names: ``not_sent``, ``unknown`` and ``refused`` have a status each.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from typing import TYPE_CHECKING

import msgspec

from zipnet.errors import LocalProtocolError, NotSent, PublishError, Refused, Unknown
from zipnet.gateway.views import Problem, PublishReceipt, PublishRequest, receipt_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from zipnet.sdk.publisher import Publisher

__all__ = ["NOTICE", "Publishing"]

NOTICE = (
    "This gateway knows that you asked it to publish this message. "
    "To be anonymous towards it too, publish from your own machine."
)
_BODY_S = 5.0
_MAX_BODY = 3 * 1024 * 1024
_DECODER = msgspec.json.Decoder(PublishRequest)

_STATUS: dict[type[PublishError], int] = {NotSent: 503, Unknown: 504, Refused: 502}


class Publishing:
    """The gateway's own publisher, lent to whoever may use it.

    Args:
        publisher: It takes part in every round, asked or not.
        anybody: Whether others than this machine may ask.
    """

    def __init__(self, publisher: Publisher, *, anybody: bool) -> None:
        self._publisher = publisher
        self._anybody = anybody

    async def close(self) -> None:
        """Leave the network: every request under way gets its outcome. Idempotent."""
        await self._publisher.close()

    async def handle(self, request: Request) -> tuple[int, PublishReceipt | Problem]:
        """Publish what a request asks for; returns the status and the answer."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _body(request)
        except TimeoutError:
            return 503, Problem(error="timeout", text="the body took too long")
        if body is None:
            return 413, Problem(error="too_large", text=f"the body has over {_MAX_BODY} bytes")
        try:
            asked = _DECODER.decode(body)
            data = _data(asked)
        except (msgspec.DecodeError, ValueError) as error:
            return 422, Problem(
                error="malformed", text=f"this is not a request to publish: {error}",
                hint='send {"text": "…"} or {"data": "<base64>"}',
            )  # fmt: skip
        salt = None if asked.salt is None else bytes.fromhex(asked.salt)
        try:
            receipt = await self._publisher.publish(data, timeout=asked.timeout_s, salt=salt)
        except LocalProtocolError as error:
            return 413, Problem(error=error.reason, text=str(error), hint=error.hint)
        except PublishError as error:
            return _STATUS.get(type(error), 502), Problem(
                error=error.reason,
                text=str(error),
                hint=error.hint,
                message_id=error.message_id.hex(),
                salt=error.salt.hex(),
            )
        return 200, receipt_of(receipt, NOTICE)

    def _refusal(self, request: Request) -> tuple[int, Problem] | None:
        if not self._anybody and not _is_loopback(request):
            return 403, Problem(
                error="not_allowed",
                text="this gateway publishes for its own machine only",
                hint="publish from your own machine: the gateway would know who you are",
            )
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return 415, Problem(
                error="content_type", text="the body must be JSON", hint="send application/json"
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return 403, Problem(error="origin", text="another site's page may not publish here")
        return None


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _body(request: Request) -> bytes | None:
    """The request's body, or None as soon as it is too long."""
    collected = bytearray()
    async for chunk in request.stream():
        collected += chunk
        if len(collected) > _MAX_BODY:
            return None
    return bytes(collected)


def _data(asked: PublishRequest) -> bytes:
    if (asked.text is None) == (asked.data is None):
        raise ValueError("it has neither or both of `text` and `data`")
    if asked.text is not None:
        return asked.text.encode()
    try:
        return base64.b64decode(asked.data or "", validate=True)
    except binascii.Error as error:
        raise ValueError("`data` is not base64") from error
