"""The OpenAPI document: what FastAPI finds by itself, and what it cannot know about signed raw bodies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from nanotasks.channels.form import MessageForm
from nanotasks.channels.webhook.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from nanotasks.gateway.problems import Problem

_REFUSALS = {
    "400": "The body is not JSON, or not in the documented form.",
    "401": "The signature or its timestamp is missing, wrong or too old.",
    "404": "No such channel takes webhooks here.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than NANOTASKS_MAX_BODY_KB.",
    "429": "Too many messages of this chat are waiting. Send it again after `Retry-After` seconds.",
    "500": "Something unforeseen happened. Send it again after `Retry-After` seconds.",
    "503": "The message could not be committed. Send it again after `Retry-After` seconds.",
}
_SIGNATURE_PARAMETERS = (
    (TIMESTAMP_HEADER, "Seconds since the epoch at the time of signing."),
    (
        SIGNATURE_HEADER,
        '`sha256=` and the hex HMAC-SHA256 of the timestamp, "." and the body, under the shared secret.',
    ),
)


def describe(app: FastAPI) -> None:
    """Make `/openapi.json` complete."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = found["components"]["schemas"]
    template = "#/components/schemas/{model}"
    _, more = models_json_schema([(MessageForm, "validation"), (Problem, "validation")], ref_template=template)
    schemas.update(more["$defs"])
    # Path parameters are plain text and cannot be invalid.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in found["paths"].items():
        if path.startswith("/webhooks/"):
            _complete_webhook(operations["post"])
    return found


def _complete_webhook(operation: dict[str, Any]) -> None:
    operation["requestBody"] = {"required": True, "content": _json_of("MessageForm")}
    operation["parameters"] += [
        {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in _SIGNATURE_PARAMETERS
    ]
    answers = operation["responses"]
    answers.pop("422", None)
    answers["202"]["description"] = "The message is safe and will be routed."
    answers["200"] = {"description": "The message had been taken before.", "content": _json_of("Taken")}
    for status, description in _REFUSALS.items():
        answers[status] = {"description": description, "content": _json_of("Problem")}
        if status in {"429", "500", "503"}:
            answers[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}


def _json_of(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
