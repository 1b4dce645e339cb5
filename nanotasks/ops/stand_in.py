"""A worker stands in for a beat that is silent: the keeper sends the ticks that nobody claimed for too long.

Ticks are claimed in the central database, so it does no harm when a beat lives after all, when every host's keeper
stands in, or when the workers are so late that a tick only waits for one: one claim a period counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from nanotasks import logs
from nanotasks.celery_app import app, beat_schedule
from nanotasks.central import Database
from nanotasks.settings import Settings
from nanotasks.sweep import ticks

_log = logs.get("stand-in")

# So many periods without a claim are silence; a beat that is back is believed after as many without our help.
SILENT_PERIODS = 2.0
BACK_PERIODS = 3.0
_LOOK_S = 1.0


def missing_ticks(ages_s: Mapping[str, float], periods_s: Mapping[str, float], watched_s: float) -> list[str]:
    """The ticks whose last claim is too old, each by its own period.

    One that was never claimed is as old as can be, but nobody judges what it has not watched for long enough: a beat
    that starts together with this process sends its first ticks a period later.
    """
    return [
        name
        for name, period_s in periods_s.items()
        if min(ages_s.get(name, float("inf")), watched_s) > SILENT_PERIODS * period_s
    ]


def stand_in(db: Database, settings: Settings, stop: threading.Event) -> None:
    """Send what is missing until `stop` is set. Says so once at the beginning of a silence, and once at its end."""
    schedule = beat_schedule(settings)
    periods_s = {name: float(entry["schedule"]) for name, entry in schedule.items()}
    look_s = min(_LOOK_S, *periods_s.values())
    began = last_sent = time.monotonic()
    is_silent = is_mute = False
    while not stop.wait(look_s):
        now = time.monotonic()
        missing = missing_ticks(ticks.ages_s(db), periods_s, now - began)
        if missing:
            if not is_silent:
                _log.warning("beat_is_silent", ticks=missing)
            is_silent, last_sent = True, now
            failed = next((error for name in missing if (error := _send(name, schedule[name]))), None)
            if failed is not None and not is_mute:
                _log.warning("ticks_not_sent", error=failed)
            is_mute = failed is not None
        elif is_silent and now - last_sent > BACK_PERIODS * max(periods_s.values()):
            _log.info("beat_is_back")
            is_silent = False


def _send(name: str, entry: Mapping[str, Any]) -> str | None:
    """As a beat does. Without Redis nothing is sent, and the next look is as good; why not, then."""
    try:
        app.send_task(name, ignore_result=True, **entry["options"])
    except Exception as error:
        return str(error).partition("\n")[0]
    return None
