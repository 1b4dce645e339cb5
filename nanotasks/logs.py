"""Structured logs on stderr: one event name and its fields per line, with ids that lead from one process to the next.

Secrets never get here: a processor masks every value of a field whose name says that it is one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

# Libraries that tell every step; what matters of it is in the events of this package.
_TALKATIVE = ("alembic", "celery", "kombu", "docker", "urllib3", "httpx", "httpcore", "asyncio")
_SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key", "_url")


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if name != "event" and any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = "***"
    return event


def configure(level: str = "info", form: str = "auto") -> None:
    """Send structlog and the standard library's loggers to stderr in one form."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    # The default traceback prints local variables, and secrets are among them.
    plain = structlog.dev.plain_traceback
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(exception_formatter=plain)
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer] if as_json else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of one module."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(name))
