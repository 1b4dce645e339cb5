"""What a series is made of, checked: the words people and agents give, and the schedule they mean."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from nanotasks.central.series import TaskSeries
from nanotasks.domain import recurrence
from nanotasks.domain.misfire import Misfire
from nanotasks.domain.vocabulary import MISFIRE_POLICIES, OVERLAP_POLICIES, RUN_ERROR_CLASSES
from nanotasks.errors import InvalidError
from nanotasks.settings import Settings

MAX_PROMPT = 100_000
MAX_SCRIPT = 64_000
# Failures that pass by themselves; a script that fails, or an agent that dies, does not.
TRANSIENT_CLASSES = ("rate_limit", "overload", "network")
_SERIES_ID = re.compile(r"[\w.:-]{1,120}", re.ASCII)


@dataclass(frozen=True)
class Options:
    """How a series behaves. None stands for the installation's setting; windows are seconds."""

    misfire: str = "run_once"
    misfire_window_s: int | None = None
    overlap: str = "queue"
    attempts_max: int | None = None
    retry_classes: tuple[str, ...] = TRANSIENT_CLASSES
    failures_max: int | None = None


@dataclass(frozen=True)
class Definition:
    """A series to be made. `first_at` is the first occurrence where it is not the schedule's own (ms UTC)."""

    prompt: str
    kind: str
    expression: str
    zone: str
    first_at: int | None = None
    script: str | None = None
    name: str | None = None
    options: Options = Options()


def check_id(series_id: str) -> str:
    """The id, if it is one that a series may have. Raises `InvalidError`."""
    if not _SERIES_ID.fullmatch(series_id):
        raise InvalidError(
            f"{series_id[:60]!r} is no id of a task.", fix="Use up to 120 letters, digits, dots, colons, - and _."
        )
    return series_id


def check_prompt(prompt: object) -> str:
    """The prompt, stripped of nothing. Raises `InvalidError` where there is none, or too much."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidError("The task has no prompt.", fix="Say what is to be done when it is time.")
    return _sized("prompt", prompt, MAX_PROMPT)


def check_script(script: str | None) -> str | None:
    """The script, None for none. Raises `InvalidError` where it is too long."""
    return _sized("script", script, MAX_SCRIPT) if script and script.strip() else None


def check_options(options: Options) -> Options:
    """The options, if each means something. Raises `InvalidError`."""
    _one_of("misfire policy", options.misfire, MISFIRE_POLICIES)
    _one_of("overlap policy", options.overlap, OVERLAP_POLICIES)
    for one in options.retry_classes:
        _one_of("error class", one, RUN_ERROR_CLASSES)
    for name, value, least in (
        ("misfire window", options.misfire_window_s, 0),
        ("number of attempts", options.attempts_max, 1),
        ("number of failures", options.failures_max, 0),
    ):
        if value is not None and not least <= value <= 2**31 - 1:
            raise InvalidError(f"The {name} {value} is too {'small' if value < least else 'large'}.")
    return options


def check_schedule(kind: str, expression: str, zone: str) -> recurrence.Schedule:
    """The schedule that an expression means. Raises `InvalidError` with the place of the mistake and a suggestion."""
    try:
        recurrence.check_zone(zone)
        return recurrence.parse(kind, expression)
    except (recurrence.ScheduleError, recurrence.ZoneError) as error:
        raise InvalidError(str(error)) from error


def schedule_of(series: TaskSeries) -> recurrence.Schedule:
    """The schedule of a stored series."""
    schedule = recurrence.parse(series.kind, series.expression)
    return schedule if series.anchor_at is None else replace(schedule, anchor_ms=series.anchor_at)


def next_after(series: TaskSeries, moment: int) -> int | None:
    """The first time of a series' schedule after `moment`; None where there is none."""
    return recurrence.next_of(schedule_of(series), series.zone, moment)


def misfire_of(series: TaskSeries, settings: Settings) -> Misfire:
    """A series' misfire policy, in the form that is decided by."""
    window_s = series.misfire_window_s
    return Misfire(
        series.misfire, None if window_s is None else window_s * 1000, round(settings.task_misfire_grace_s * 1000)
    )


def kind_of(recurrence_text: str | None) -> str:
    """`once`, `every` or `cron`, by the form of what an agent or an operator wrote."""
    if not recurrence_text or not recurrence_text.strip():
        return "once"
    return "every" if recurrence_text.strip().lower().startswith("every ") else "cron"


def _sized(noun: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise InvalidError(f"The {noun} is too long.", why=f"It has {len(text)} characters, and {limit} are allowed.")
    return text.replace("\0", "")


def _one_of(noun: str, word: str, words: Collection[str]) -> None:
    if word not in words:
        raise InvalidError(f"{word!r} is no {noun}.", fix=f"Use one of {', '.join(words)}.")
