"""The OpenAPI document, made from the types that are served."""

from __future__ import annotations

from typing import Any

import msgspec

from zipnet.gateway import views

__all__ = ["openapi"]

_TYPES = (
    views.BroadcastPage,
    views.Problem,
    views.PublishReceipt,
    views.PublishRequest,
    views.RoundPage,
    views.Status,
)
_RANGE = [
    {
        "name": "from",
        "in": "query",
        "description": "First record of the range; negative counts back from the newest.",
        "schema": {"type": "integer", "default": 0},
    },
    {
        "name": "limit",
        "in": "query",
        "description": "Most records in the range.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 256, "default": 64},
    },
]
_LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "With server-sent events: go on after this record.",
    "schema": {"type": "integer"},
}


def openapi(version: str, *, publishing: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        version: Version of the program.
        publishing: Whether ``POST /v1/publish`` is served.
    """
    _, components = msgspec.json.schema_components(
        _TYPES, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {
        "/v1/broadcasts": {
            "get": _get(
                "Messages that were broadcast, by the records that completed them",
                "BroadcastPage",
                "Broadcast",
            )
        },
        "/v1/rounds": {"get": _get("Final rounds, as their records say", "RoundPage", "Round")},
        "/v1/status": {
            "get": {
                "summary": "The instance, its committee, and this gateway",
                "responses": {"200": _json("Status")},
            }
        },
    }
    if publishing:
        paths["/v1/publish"] = {"post": _publish()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zipnet gateway",
            "version": version,
            "description": "Everything read here was verified by the gateway against the signed "
            "descriptor. To verify it yourself, use the SDK and the descriptor.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _json(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": name, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, page: str, event: str) -> dict[str, Any]:
    good = _json(page)
    good["content"]["text/event-stream"] = {
        "schema": {
            "type": "string",
            "description": f"With `Accept: text/event-stream`: one {event} as JSON per event, "
            "live, with the record's sequence number as its id.",
        }
    }
    return {
        "summary": summary,
        "parameters": [*_RANGE, _LAST_EVENT],
        "responses": {
            "200": good,
            "400": _json("Problem"),
            "502": _json("Problem"),
            "503": _json("Problem"),
        },
    }


def _publish() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/PublishRequest"}
    return {
        "summary": "Publish a message through this gateway, which learns who its author is",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": _json("PublishReceipt"),
            **{
                code: _json("Problem") for code in ("403", "413", "415", "422", "502", "503", "504")
            },
        },
    }
