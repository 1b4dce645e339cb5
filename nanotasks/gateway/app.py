"""The HTTP application of the gateway."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from nanotasks import __version__
from nanotasks.central import Database
from nanotasks.gateway import health, metrics, openapi, webhooks
from nanotasks.gateway.problems import answer_errors
from nanotasks.gateway.receivers import Receivers
from nanotasks.settings import Settings


def build(settings: Settings, central: Database, receivers: Receivers, redis_ok: Callable[[], bool]) -> FastAPI:
    """The application; its document is at `/openapi.json`. There are no pages that load scripts from elsewhere."""
    app = FastAPI(
        title="nanotasks gateway",
        version=__version__,
        description="Takes messages for chat agents. A 2xx means that the message is safe.",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(webhooks.routes(settings, receivers))
    app.include_router(health.routes(central, receivers, redis_ok))
    app.include_router(metrics.routes(settings, central))
    answer_errors(app)
    openapi.describe(app)
    return app
