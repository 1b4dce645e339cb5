"""`/healthz` (this process lives) and `/readyz` (it can take messages)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from nanotasks.central import Database
from nanotasks.gateway.receivers import Receivers

T = TypeVar("T")
_PATIENCE_S = 5.0

Answers = Literal["ok", "down"]


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether messages can be taken. They can without Redis: then they are signalled by the sweeps, later."""

    status: Literal["ready", "not ready"]
    database: Answers
    redis: Answers
    channels: dict[str, str] = Field(description="For each channel with a receiver: open, retrying or failed.")


def routes(central: Database, receivers: Receivers, redis_ok: Callable[[], bool]) -> APIRouter:
    """The two health routes."""
    router = APIRouter()

    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Health:
        """Always 200 while the process answers."""
        return Health()

    @router.get("/readyz", summary="Whether messages can be taken", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """200 when the central database answers, with or without Redis; 503 otherwise."""
        database, redis = await asyncio.gather(_ask(lambda: _database_ok(central)), _ask(redis_ok))
        response.status_code = 200 if database else 503
        return Readiness(
            status="ready" if database else "not ready",
            database="ok" if database else "down",
            redis="ok" if redis else "down",
            channels=dict(receivers.states),
        )

    return router


async def _ask(question: Callable[[], bool]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asyncio.to_thread(question)
    except Exception:
        return False


def _database_ok(central: Database) -> bool:
    with central.read() as session:
        session.execute(text("SELECT 1 FROM inbound_events WHERE id = ''"))
    return True
