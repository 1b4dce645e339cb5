"""A rolling restart to a newer release over a newer schema, with twenty messages in flight.

The newer release is a copy of this one with one more migration, which adds what a release adds: a column and a table.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanotasks.testing import wait_for
from tests.faults.mutations import copy_of_project
from tests.installation import Installation, installation

pytestmark = pytest.mark.faults

CHATS = [f"c{number}" for number in range(5)]
MESSAGES = 4
MIGRATION = '''"""The next release's schema.

Revision: 9999, after {head}.
"""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("of_the_next_release", sa.String(), nullable=True))
    op.create_table("next_release", sa.Column("id", sa.String(), primary_key=True))
'''


@contextmanager
def next_release() -> Iterator[Path]:
    """A directory with the next release."""
    with copy_of_project() as copy:
        versions = copy / "migrations" / "versions"
        head = max(path.name for path in versions.glob("[0-9]*.py")).split("_")[0]
        (versions / "9999_next_release.py").write_text(MIGRATION.format(head=head))
        yield copy


def of_release(here: Installation, copy: Path | None) -> None:
    """From now on commands are those of that release; None for this one."""
    paths = [copy, copy / "container"] if copy else [Path(__file__).resolve().parents[2]]
    here.environment |= {"PYTHONPATH": ":".join(map(str, paths)), "PYTHONSAFEPATH": "1"}


@pytest.mark.timeout(240)
def test_a_rolling_restart_loses_nothing(tmp_path: Path, redis_url: str) -> None:
    """The schema first, then part by part; each old part ends by itself, and an old one that starts is refused."""
    with next_release() as copy, installation(tmp_path, redis_url=redis_url) as here:
        here.apply(
            groups=[{"folder": "andy", "name": "Andy"}],
            chats=[{"chat": f"file:{chat}", "unknown_sender_policy": "public"} for chat in CHATS],
            wirings=[{"chat": f"file:{chat}", "group": "andy", "engage_pattern": "."} for chat in CHATS],
        )
        old = {name: here.start(name) for name in ("worker", "beat", "gateway")}
        wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the old worker")
        here.say(
            [
                {"id": f"{chat}-{n}", "platform_id": chat, "sender_id": "ann", "text": f"slow 1 {chat} {n}"}
                for n in range(MESSAGES)
                for chat in CHATS
            ]
        )
        wait_for(lambda: any(here.heard(chat) for chat in CHATS), 30, what="the first answer")
        of_release(here, copy)
        here.run("db", "upgrade")
        for name, process in old.items():
            here.start(name)
            if name == "worker":
                wait_for(lambda: here.log("worker").count('"worker_ready"') == 2, 30, what="the new worker")
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.wait(20) == 0, f"the old {name} ended badly"
            assert time.monotonic() - began < 15
        here.say(
            [
                {"id": f"{chat}-late", "platform_id": chat, "sender_id": "ann", "text": f"echo late {chat}"}
                for chat in CHATS
            ]
        )
        for chat in CHATS:
            wanted = [*(f"{chat} {n}" for n in range(MESSAGES)), f"late {chat}"]
            wait_for(lambda chat=chat, wanted=wanted: len(here.heard(chat)) >= len(wanted), 60, what=chat)  # type: ignore[misc]
            assert here.heard(chat) == wanted
        of_release(here, None)
        refused = here.run("worker", code=78)
        assert "newer release" in refused.stderr


@pytest.mark.parametrize("task", ["intake.route", "wake.session", "deliver.session", "sweep.due", "worker.canary"])
def test_a_task_passes_over_arguments_of_a_later_release(task: str) -> None:
    """Release n takes what release n + 1 sends."""
    code = f"""
import inspect
from nanotasks.celery_app import TASK_MODULES, app
app.loader.import_default_modules()
kinds = [one.kind for one in inspect.signature(app.tasks[{task!r}].run).parameters.values()]
assert inspect.Parameter.VAR_POSITIONAL in kinds, kinds
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
