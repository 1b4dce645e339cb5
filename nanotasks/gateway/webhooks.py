"""`POST /webhooks/<channel>[/<path>]`: hands what a platform posts to the receiver of its channel."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from nanotasks.channels.contract import HttpAnswer, HttpRequest
from nanotasks.errors import NotFoundError
from nanotasks.gateway.bodies import read_body
from nanotasks.gateway.problems import BusyError, problem
from nanotasks.gateway.receivers import Receivers, call
from nanotasks.gateway.refusals import Refusals
from nanotasks.settings import Settings

# Each may hold a body in memory and a thread that waits for a commit.
MAX_REQUESTS = 64


class Taken(BaseModel):
    """The message is safe."""

    event_id: str
    duplicate: bool = Field(description="True when it had been taken before.")


def routes(settings: Settings, receivers: Receivers) -> APIRouter:
    """The routes of all webhooks."""
    router = APIRouter()
    room = asyncio.Semaphore(MAX_REQUESTS)

    refusals = Refusals()

    async def take(request: Request, channel_type: str, path: str) -> Response:
        response = await answer(request, channel_type, path)
        if response.status_code >= 400:
            refusals.note(channel_type, response.status_code, json.loads(bytes(response.body) or b"{}"))
        return response

    async def answer(request: Request, channel_type: str, path: str) -> Response:
        if room.locked():
            return problem(BusyError(why="Many requests are being taken.", fix="Send it again."))
        async with room:
            try:
                given = await _hand_over(settings, receivers, request, channel_type, path)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception as error:
                return problem(error)
        return JSONResponse(dict(given.body), given.status, dict(given.headers))

    @router.post("/webhooks/{channel_type}", status_code=202, response_model=Taken, summary="Say something")
    async def post(request: Request, channel_type: str) -> Response:
        """Hand a message to a channel. The chat is named in the body."""
        return await take(request, channel_type, "")

    @router.post(
        "/webhooks/{channel_type}/{chat:path}", status_code=202, response_model=Taken, summary="Say something in a chat"
    )
    async def post_to_chat(request: Request, channel_type: str, chat: str) -> Response:
        """Hand a message to a channel. The path names the chat unless the body does."""
        return await take(request, channel_type, chat)

    return router


async def _hand_over(
    settings: Settings, receivers: Receivers, request: Request, channel_type: str, path: str
) -> HttpAnswer:
    receiver = receivers.http(channel_type)
    if receiver is None:
        raise NotFoundError(
            f"No channel {channel_type} takes webhooks here.",
            fix="Check the path; the webhook channel is on when NANOTASKS_WEBHOOK_SECRET is set.",
        )
    body = await read_body(request, settings.max_body_kb)
    headers = {name.lower(): value for name, value in request.headers.items()}
    answer: HttpAnswer = await call(receiver.handle, HttpRequest(path, headers, body))
    return answer
