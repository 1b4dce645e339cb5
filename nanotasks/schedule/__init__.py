"""Scheduled tasks: series, their occurrences, and what became of each.

The central database is the truth; a session's inbound.db holds a copy of what is planned, which is what runners and
`list_tasks` read. One occurrence, (series, scheduled_for), is one row of `task_runs`, whatever is repeated.

    define      series + the run of its first occurrence, planned              central, one commit
    project     the planned run as a pending `task` row in inbound.db          under the lock of inbound.db
    due         the row is due: a warm runner takes it, a cold session is woken by the alarm or the sweep
    claim       seen in outbound.db: run claimed, how late, and its successor planned     central, one commit
    end         seen in outbound.db: outcome, result; or another attempt, later

The successor is planned when an occurrence is claimed or decided on, from its scheduled time and never from the
clock, so a series goes on whatever became of its last run. Policies come before the runner, never after it:

    overlap     an occurrence whose predecessor still runs is withdrawn just before its time (`skip`), or waits
    misfire     before a cold session is woken, and when a successor is planned, occurrences that are late are decided
                on: missed, run once, or all run (`domain/misfire.py`)

A runner's claim always wins: a row that was withdrawn in the same moment, and is claimed all the same, is recorded as
the run that it is, with a note. That is decided by reading outbound.db while inbound.db is locked for the withdrawal.

What each crash does. Every change of a run that its file must say clears `projected_at` in the same commit, and the
projection sets it for the version that it wrote:

    after define, before projection        unprojected: the sweep has it projected
    after the claim's commit, before       the successor is unprojected; the claim is seen again and changes nothing
      the successor is in the file
    after the end's commit, before the     the ack is seen again, finds the run ended, and completes the row
      row is completed
    agent dead in mid-run                  the row is put off and claimed again, the same attempt; after
                                           `inbound_max_tries` deaths it has failed and the run ends as a crash
    worker dead at due time                the runner takes the row by itself; the next worker sees the claim
    beat dead                              the host's alarm and the stand-in do not need it
"""
