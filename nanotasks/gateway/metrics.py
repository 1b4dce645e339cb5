"""`/metrics` for Prometheus: the same figures from every gateway, since they are read from the central database.

They hold no texts and no names of people, but they tell how much is going on, and the gateway's port is often open
to the platforms. So without `NANOTASKS_METRICS_TOKEN` only this machine may read them, and with it whoever shows it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from nanotasks.central import Database
from nanotasks.errors import UnauthorizedError
from nanotasks.gateway.problems import problem
from nanotasks.settings import Settings
from nanotasks.watch.exposition import CONTENT_TYPE, exposition


def routes(settings: Settings, central: Database) -> APIRouter:
    """The route of the metrics."""
    router = APIRouter()
    # Scrapes that come faster than they are answered wait here, not in the database.
    one_at_a_time = asyncio.Lock()

    @router.get("/metrics", summary="Metrics in Prometheus's text format", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Histograms, counters and gauges; `docs/events.md` has their names and meanings."""
        try:
            _require_reader(settings, request)
            async with one_at_a_time:
                text = await asyncio.to_thread(exposition, central)
        except Exception as error:
            return problem(error)
        return Response(text, media_type=CONTENT_TYPE)

    return router


def _require_reader(settings: Settings, request: Request) -> None:
    if settings.metrics_token:
        shown = request.headers.get("authorization", "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {settings.metrics_token}".encode()):
            raise UnauthorizedError(
                "The metrics are for those who show the token.",
                fix="Send the header `Authorization: Bearer …` with the value of NANOTASKS_METRICS_TOKEN.",
            )
    elif not _is_here(request):
        raise UnauthorizedError(
            "The metrics are for this machine only.",
            why="NANOTASKS_METRICS_TOKEN is not set, and the request came from elsewhere.",
            fix="Set NANOTASKS_METRICS_TOKEN for the gateway, and show it as `Authorization: Bearer …`.",
        )


def _is_here(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
