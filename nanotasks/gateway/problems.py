"""Errors of the HTTP API: always `{code, what, why, fix}`, with `Retry-After` where trying again helps."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from nanotasks import logs
from nanotasks.channels.refusal import refusal
from nanotasks.errors import NanotasksError

_log = logs.get("gateway")
_FIXES = {404: "See /openapi.json for the paths there are.", 405: "See /openapi.json for the methods there are."}


class Problem(BaseModel):
    """What went wrong, why, and what to do."""

    code: str = Field(description="A word for programs, such as `unauthorized` or `too_large`.")
    what: str
    why: str
    fix: str


class BodyTooLargeError(NanotasksError):
    """The request body is too large."""

    code = "too_large"


class BodyTooSlowError(NanotasksError):
    """The request body did not arrive in time."""

    code = "too_slow"


class BusyError(NanotasksError):
    """The gateway is busy."""

    code = "busy"


_STATUS = {BodyTooLargeError: 413, BodyTooSlowError: 408, BusyError: 503}
_RETRY_AFTER_S = 1.0


def answer_errors(app: FastAPI) -> None:
    """Answer what the framework refuses (paths, methods) in the one form too."""
    app.add_exception_handler(HTTPException, _on_http)


def problem(error: Exception) -> JSONResponse:
    """The response to one error; one that nobody foresaw is logged."""
    if not isinstance(error, NanotasksError):
        _log.error("request_failed", exc_info=error)
    status = _STATUS.get(type(error)) if isinstance(error, NanotasksError) else None
    if isinstance(error, NanotasksError) and status is not None:
        headers = _retry_headers(_RETRY_AFTER_S) if status == 503 else {"Connection": "close"}
        return JSONResponse(error.as_json(), status, headers)
    answer = refusal(error)
    return JSONResponse(answer.body, answer.status, _retry_headers(answer.retry_after_s))


def _retry_headers(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = str(error.detail) if isinstance(error, HTTPException) else "Something went wrong"
    body = {"code": what.lower().replace(" ", "_"), "what": f"{what}.", "why": "", "fix": _FIXES.get(status, "")}
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(body, status, headers)
