"""A process that delivers one session's messages, and may kill itself at a chosen moment.

    python -m tests.integration.delivering <database url> <data dir> <session> <journal> [<moment> [<text>]]

`moment` is `before` or `after`: the message with that text kills the process with SIGKILL before or after it has
arrived. The channel knows our keys when the journal's name says `idempotent`.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from nanotasks.central import Database
from nanotasks.channels.contract import Capabilities, OutboundMessage
from nanotasks.deliver.service import attempt, deliver_session
from nanotasks.settings import Settings
from nanotasks.testing import ScriptedSender, channel_of
from tests.scene import HOST, Bells


def capabilities(journal: Path) -> Capabilities:
    return Capabilities(
        idempotent="idempotent" in journal.name, uncertain="hold" if "hold" in journal.name else "resend"
    )


def deliver(db: Database, settings: Settings, session_id: str) -> None:
    """One round, and the attempts it asks for at once."""
    for kind, *ids in deliver_session(db, settings, session_id, bells=Bells()).signals:
        if kind == "attempt":
            delivery_id, _, number = ids
            attempt(db, settings, delivery_id, number, bells=Bells())


def main() -> None:
    url, data_dir, session_id, journal, *fate = sys.argv[1:]
    moment, text = fate if fate else ("", "")

    def die(message: OutboundMessage) -> None:
        if message.content.get("text") == text:
            os.kill(os.getpid(), signal.SIGKILL)

    sender = ScriptedSender(Path(journal))
    if moment:
        setattr(sender, moment, die)
    settings = replace(
        Settings(),
        data_dir=Path(data_dir),
        database_url=url,
        host_id=HOST,
        runtime_dir=str(Path(data_dir).parent / "run"),
        delivery_wait_s=30.0,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with channel_of(sender, "scripted", capabilities(Path(journal))):
        deliver(Database(url), settings, session_id)


if __name__ == "__main__":
    main()
