"""What `/openapi.json` says of the addresses: bodies are read by our own hand, within limits, so
their schemas stand here."""

from __future__ import annotations

from typing import Any

DESCRIPTION = """Recognition over HTTP.

Send a picture to `/v1/predict`: as the body itself, as parts of a form, or in JSON as base64.
Whatever else stands in the query, the form or the JSON is an option of the answer, as
`/v1/models` lists them for each model (`top_k`, `confidence`, …)."""

_TEXT: dict[str, Any] = {"type": "string"}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": _TEXT, "message": _TEXT, "mend": _TEXT},
}
_PICTURE: dict[str, Any] = {
    "oneOf": [
        {"type": "string", "format": "byte"},
        {
            "type": "object",
            "properties": {
                "name": _TEXT,
                "data": {"type": "string", "format": "byte"},
                "url": {"type": "string", "description": "where the server fetches pictures"},
            },
        },
    ]
}
_RESULT: dict[str, Any] = {
    "type": "object",
    "description": "As a line of `predictions.jsonl`, with the picture's size; or an `error`.",
    "required": ["path"],
    "properties": {
        "path": _TEXT,
        "size": {
            "type": "object",
            "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
        },
        "error": _ERROR,
    },
    "additionalProperties": True,
}
_STATUSES = {
    400: "A picture, or the request, cannot be read",
    401: "An API key is needed",
    404: "No such model",
    408: "The body did not come in time",
    413: "Too many bytes, pixels or pictures",
    415: "A kind of picture that is not read here",
    429: "Busy: come again after `Retry-After` seconds",
    500: "The model failed on the picture",
    503: "Not ready, or too busy to answer in time",
}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str) -> dict[str, Any]:
    properties = {"error": _ERROR, "request": _TEXT}
    return _json(description, {"type": "object", "properties": properties})


PICTURES: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"image": _PICTURE, "images": {"type": "array", "items": _PICTURE}},
            },
            "example": {"image": "…base64…"},
        },
    },
}
_MODEL: dict[str, Any] = {
    "name": "model", "in": "query", "schema": _TEXT, "description": "default: the first one"
}  # fmt: skip
PREDICT: dict[str, Any] = {
    "tags": ["recognise"],
    "responses": {
        200: _json(
            "A result for each picture",
            {
                "type": "object",
                "required": ["model", "version", "results"],
                "properties": {
                    "model": _TEXT,
                    "version": _TEXT,
                    "results": {"type": "array", "items": _RESULT},
                },
            },
        ),
        **{status: _problem(told) for status, told in _STATUSES.items()},
    },
    "openapi_extra": {"requestBody": PICTURES, "parameters": [_MODEL]},
}
EXPLAIN: dict[str, Any] = {
    "tags": ["recognise"],
    "responses": {
        200: {
            "description": "A PNG, transparent where nothing speaks for the class; the headers"
            " X-Target (RFC 5987), X-Score and X-Method say what it is of",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        **{status: _problem(told) for status, told in _STATUSES.items()},
    },
    "openapi_extra": {
        "requestBody": PICTURES,
        "parameters": [
            _MODEL,
            {
                "name": "target",
                "in": "query",
                "schema": _TEXT,
                "description": "a class; default: the best one",
            },
        ],
    },
}
MODELS: dict[str, Any] = {
    "tags": ["recognise"],
    "responses": {200: _json("The models", {"type": "object"})},
}
HEALTH: dict[str, Any] = {
    "tags": ["run"],
    "responses": {200: _json("It is", {"type": "object"})},
}
READY: dict[str, Any] = {
    "tags": ["run"],
    "responses": {200: _json("It is", {"type": "object"}), 503: _problem("Not yet, or no more")},
}
METRICS: dict[str, Any] = {
    "tags": ["run"],
    "responses": {200: {"description": "Metrics", "content": {"text/plain": {"schema": _TEXT}}}},
}
