"""Scheduled tasks and their runs, as they are listed: one SELECT each, the same on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanotasks.ops.quick import Rows, rows

_SERIES = """
SELECT s.id, s.name, s.state, s.kind, s.expression, s.zone, s.next_at, s.failures, s.prompt, s.script,
       g.folder AS "group", s.agent_group_id AS group_id, s.session_id AS session, s.channel_type, s.platform_id,
       s.thread_id, s.misfire, s.misfire_window_s, s.overlap, s.attempts_max, s.retry_classes, s.failures_max,
       s.paused_until AS paused_until_at, s.paused_reason, s.anchor_at, s.created_by, s.created_at, s.updated_at,
       (SELECT r.outcome FROM task_runs r WHERE r.series_id = s.id AND r.state = 'ended'
         ORDER BY r.scheduled_for DESC LIMIT 1) AS last_outcome
  FROM task_series s JOIN agent_groups g ON g.id = s.agent_group_id
"""
# What the text forms of the list show; reading nothing else halves its time.
_BRIEF = """
SELECT s.id, s.name, s.state, s.kind, s.expression, s.zone, s.next_at, s.failures, substr(s.prompt, 1, 200) AS prompt,
       g.folder AS "group", '' AS retry_classes,
       (SELECT r.outcome FROM task_runs r WHERE r.series_id = s.id AND r.state = 'ended'
         ORDER BY r.scheduled_for DESC LIMIT 1) AS last_outcome
  FROM task_series s JOIN agent_groups g ON g.id = s.agent_group_id
"""
_RUNS = """
SELECT r.id, r.series_id AS task, s.name, g.folder AS "group", r.session_id AS session,
       r.scheduled_for AS scheduled_at, r.due_at, r.origin, r.state, r.outcome, r.attempts, s.attempts_max,
       r.claimed_at, r.finished_at, r.lateness_ms, r.error_class AS class, r.error_text AS error, r.result, r.note,
       r.inbound_id, s.zone
  FROM task_runs r JOIN task_series s ON s.id = r.series_id JOIN agent_groups g ON g.id = s.agent_group_id
"""


def series(
    *,
    states: Sequence[str] = (),
    group_id: str | None = None,
    session_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    error_class: str | None = None,
    ids: Sequence[str] = (),
    limit: int = 0,
    brief: bool = False,
) -> Rows:
    """Series by the time of their next run, those without one last. `since` and `until` are of that time (ms UTC).

    `brief` leaves out what no text form of the list shows.
    """
    conditions, values = _common("s.agent_group_id", "s.session_id", group_id, session_id)
    _among(conditions, values, "s.state", "state", states)
    _among(conditions, values, "s.id", "id", ids)
    _between(conditions, values, "s.next_at", since, until)
    if error_class:
        conditions.append(
            "EXISTS (SELECT 1 FROM task_runs f WHERE f.series_id = s.id AND f.error_class = :error_class"
            " AND f.scheduled_for = (SELECT max(l.scheduled_for) FROM task_runs l WHERE l.series_id = s.id"
            " AND l.state = 'ended'))"
        )
        values["error_class"] = error_class
    order = " ORDER BY CASE WHEN s.next_at IS NULL THEN 1 ELSE 0 END, s.next_at, s.created_at, s.id"
    return _select(_BRIEF if brief else _SERIES, conditions, order, values, limit)


def runs(
    *,
    task: str | None = None,
    states: Sequence[str] = (),
    group_id: str | None = None,
    session_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    error_class: str | None = None,
    ids: Sequence[str] = (),
    limit: int = 0,
) -> Rows:
    """Runs, the newest first. `states` are states or outcomes; `since`, `until`: the scheduled time (ms UTC)."""
    conditions, values = _common("s.agent_group_id", "r.session_id", group_id, session_id)
    _among(conditions, values, "coalesce(r.outcome, r.state)", "state", states)
    _among(conditions, values, "r.id", "id", ids)
    _between(conditions, values, "r.scheduled_for", since, until)
    for column, name, value in (("r.series_id", "task", task), ("r.error_class", "class", error_class)):
        if value:
            conditions.append(f"{column} = :{name}")
            values[name] = value
    return _select(_RUNS, conditions, " ORDER BY r.scheduled_for DESC, r.id DESC", values, limit)


def _common(
    group_column: str, session_column: str, group_id: str | None, session_id: str | None
) -> tuple[list[str], dict[str, Any]]:
    conditions, values = [], {}
    for column, name, value in ((group_column, "group_id", group_id), (session_column, "session_id", session_id)):
        if value:
            conditions.append(f"{column} = :{name}")
            values[name] = value
    return conditions, values


def _among(conditions: list[str], values: dict[str, Any], column: str, name: str, words: Sequence[str]) -> None:
    if words:
        names = [f"{name}_{number}" for number in range(len(words))]
        conditions.append(f"{column} IN ({', '.join(':' + one for one in names)})")
        values.update(zip(names, words, strict=True))


def _between(conditions: list[str], values: dict[str, Any], column: str, since: int | None, until: int | None) -> None:
    if since is not None:
        conditions.append(f"{column} >= :since")
        values["since"] = since
    if until is not None:
        conditions.append(f"{column} < :until")
        values["until"] = until


def _select(statement: str, conditions: list[str], order: str, values: dict[str, Any], limit: int) -> Rows:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return rows(f"{statement}{where}{order}{f' LIMIT {int(limit)}' if limit else ''}", values)
