"""Routing and appending, against what NanoClaw 2 did with the same messages (`tests/data/routing.json`).

Every scenario builds its chats, wirings and people, sends its messages one by one, and compares what became of
each: sessions, rows in real session files, attachments, wakes, typing, subscriptions, users, drops. Steps that are
tagged as a defect of NanoClaw 2 are compared with what was meant instead; `Replay.mended` says how.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text

from nanotasks.central import Base, Database
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import Drop, InboundEvent
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.migrate import upgrade
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import Member, User, UserRole
from nanotasks.channels.contract import Accepted, Address, Capabilities, InboundMessage
from nanotasks.domain.routing import CHAT_DENIED, COMMAND_FILTERED, COMMAND_REFUSED, NO_CONTENT, NOT_MENTIONED
from nanotasks.intake.accept import accept_all
from nanotasks.intake.append import append_session
from nanotasks.intake.prepared import Prepared, prepare
from nanotasks.intake.service import RouteResult, route_chat
from nanotasks.session.layout import SessionFolder
from nanotasks.settings import Settings
from nanotasks.testing import PostgresServer

SCENARIOS = json.loads((Path(__file__).parents[2] / "data" / "routing.json").read_text())["scenarios"]
# NanoClaw 2 said nothing about these; here every message has an end with a reason.
SILENT = {NOT_MENTIONED, CHAT_DENIED, COMMAND_FILTERED, COMMAND_REFUSED, NO_CONTENT}


@pytest.fixture(scope="module")
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Database]]:
    """One database of each kind for all scenarios, opened when it is needed first."""
    opened: dict[str, Database] = {}

    def database(kind: str) -> Database:
        if kind not in opened:
            if kind == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('routing') / 'central.db'}"
            else:
                server: PostgresServer = request.getfixturevalue("postgres")
                url = server.create_database()
            opened[kind] = Database(url)
            upgrade(opened[kind])
        return opened[kind]

    yield database
    for one in opened.values():
        one.close()


@pytest.mark.parametrize(
    ("kind", "scenario"),
    [
        *(pytest.param("sqlite", one, id=f"sqlite-{one['id']}") for one in SCENARIOS),
        # The rules are the same there; a part of them shows that the statements are.
        *(
            pytest.param("postgresql", one, id=f"postgresql-{one['id']}", marks=pytest.mark.postgres)
            for one in SCENARIOS[::4]
        ),
    ],
)
def test_recorded_scenario(
    databases: Callable[[str], Database], tmp_path: Path, kind: str, scenario: dict[str, Any]
) -> None:
    """The same messages have the same effects, or the mended ones."""
    database = databases(kind)
    arrange(database, scenario["fixture"])
    replay = Replay(database, tmp_path, scenario["fixture"])
    for step in scenario["steps"]:
        replay.run(step)


def arrange(db: Database, fixture: dict[str, Any]) -> None:
    with db.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    with db.write() as session:
        _allow_unknown_words(db, session)
        session.add(Host(id="here", heartbeat_at=1, created_at=1))
        session.flush()
        for group in fixture["agent_groups"]:
            session.execute(insert(AgentGroup).values(**group, created_at=1))
        for chat in fixture["messaging_groups"]:
            denied_at = 1 if chat.pop("denied") else None
            session.execute(insert(Chat).values(**chat, denied_at=denied_at, created_at=1))
            chat["denied"] = denied_at is not None
        for number, wiring in enumerate(fixture["wirings"]):
            session.execute(insert(Wiring).values(**wiring, id=f"w{number}", created_at=1))
        for user in fixture["users"]:
            session.execute(insert(User).values(**user, created_at=1))
        for role in fixture["user_roles"]:
            session.execute(insert(UserRole).values(**role, granted_at=1))
        for member in fixture["agent_group_members"]:
            session.execute(insert(Member).values(**member, added_at=1))


def _allow_unknown_words(db: Database, session: Any) -> None:
    """Some scenarios have modes and policies that do not exist, which the database would refuse."""
    if db.dialect == "sqlite":
        session.execute(text("PRAGMA ignore_check_constraints = ON"))
        return
    for table, name in (
        ("messaging_group_agents", "ck_messaging_group_agents_engage_mode"),
        ("messaging_groups", "ck_messaging_groups_unknown_sender_policy"),
    ):
        session.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"))


@dataclass
class Seen:
    """A session of ours: its id, its place, how many rows were looked at, and how many more it has than recorded."""

    id: str
    place: tuple[str, str | None, str | None]
    route_key: str
    rows: int = 0
    files: set[str] = field(default_factory=set)
    extra_rows: int = 0


@dataclass
class Replay:
    db: Database
    data_dir: Path
    fixture: dict[str, Any]
    sessions: dict[str, Seen] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def run(self, step: dict[str, Any]) -> None:
        event, observed = step["event"], step["observed"]
        defects = set(step.get("known_defect", ()))
        known_users = self._users()
        event_id = self._accept(event)
        result = self._route(event)
        observed = self.mended(event, observed, defects)
        self._compare_sessions(observed, defects)
        self._compare_rows(event, observed, defects)
        self._compare_signals(observed, result)
        self._compare_drop(event_id, observed, defects)
        self._compare_users(event, observed, known_users)
        self._compare_chat(event, observed)

    def mended(self, event: dict[str, Any], observed: dict[str, Any], defects: set[str]) -> dict[str, Any]:
        """What was meant where NanoClaw 2 did something else.

        A sticky wiring whose own overheard rows made it answer keeps on overhearing. (A refused command that stopped
        the fan-out, an agent-shared session that was somebody else's, and drops are mended where they are compared.)
        """
        if "sticky_accumulate_self_subscribes" not in defects:
            return observed
        sticky = {
            wiring["agent_group_id"]
            for wiring in self._wirings(event)
            if wiring["engage_mode"] == "mention-sticky" and wiring["ignored_message_policy"] == "accumulate"
        }
        observed = json.loads(json.dumps(observed))
        for name, rows in observed["rows_new"].items():
            for row in rows:
                if row["id"].rsplit(":", 1)[1] in sticky:
                    row["trigger"] = 0
                    at = observed["wakes"].index(name)
                    del observed["wakes"][at], observed["typing"][at]
        observed["subscribes"] = []
        return observed

    def _wirings(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        here = (event["channelType"], event["platformId"])
        chats = {
            chat["id"]
            for chat in self.fixture["messaging_groups"]
            if (chat["channel_type"], chat["platform_id"]) == here
        }
        return [wiring for wiring in self.fixture["wirings"] if wiring["messaging_group_id"] in chats]

    def _accept(self, event: dict[str, Any]) -> str:
        said = event["message"]
        reply_to = event.get("replyTo")
        try:
            content = json.loads(said["content"])
        except ValueError:
            content = None
        prepared = prepare(
            InboundMessage(
                Address(event["channelType"], event["platformId"], event["threadId"]),
                said["id"],
                content if isinstance(content, dict) else {"text": said["content"]},
                said["timestamp"],
                said["kind"],
                bool(said.get("isMention")),
                said.get("isGroup"),
                Address(reply_to["channelType"], reply_to["platformId"], reply_to["threadId"]) if reply_to else None,
            )
        )
        if not isinstance(content, dict):
            prepared = replace(prepared, row={**prepared.row, "content": said["content"]})
        return self._entered(prepared)

    def _entered(self, prepared: Prepared) -> str:
        (outcome,) = accept_all(self.db, [prepared], max_pending=100)
        assert isinstance(outcome, Accepted) and not outcome.duplicate
        return outcome.event_id

    def _capabilities(self, channel_type: str) -> Capabilities | None:
        adapter = self.fixture["adapters"].get(channel_type)
        return None if adapter is None else Capabilities(supports_threads=adapter["supports_threads"])

    def _route(self, event: dict[str, Any]) -> RouteResult:
        result = route_chat(
            self.db,
            Settings(data_dir=self.data_dir, host_id="here"),
            event["channelType"],
            event["platformId"],
            capabilities=self._capabilities,
        )
        assert (result.events, result.more, result.retry_at_ms) == (1, False, None)
        for touched in result.touched.values():
            assert touched.host_id == "here"
            assert append_session(self.db, self.data_dir, touched.session_id).trigger == touched.trigger
        return result

    def _compare_sessions(self, observed: dict[str, Any], defects: set[str]) -> None:
        with self.db.read() as session:
            rows = session.scalars(select(AgentSession).order_by(AgentSession.created_at)).all()
        made = [row for row in rows if row.id not in self.sessions]
        for row in made:
            place = (row.agent_group_id, row.messaging_group_id, row.thread_id)
            self.sessions[row.id] = Seen(row.id, place, row.route_key)
        unclaimed = {one.id for one in self.sessions.values()} - set(self.names.values())
        expected = observed.get("sessions_new", [])
        for wanted in expected:
            place = (wanted["agent_group_id"], wanted["messaging_group_id"], wanted["thread_id"])
            (found,) = [one for one in unclaimed if self.sessions[one].place == place]
            unclaimed.discard(found)
            self.names[wanted["session"]] = found
        if not defects & {"denied_admin_throws", "agent_shared_adopts_foreign"}:
            assert len(made) <= len(expected)

    def _compare_rows(self, event: dict[str, Any], observed: dict[str, Any], defects: set[str]) -> None:
        stopped = "denied_admin_throws" in defects
        found = {one.id: self._new_rows(one) for one in self.sessions.values()}
        for name, rows in observed.get("rows_new", {}).items():
            for row in rows:
                session = self._session_of(event, row, self.names[name])
                mine = found[session.id].pop(0)
                foreign = session.id != self.names[name]
                assert _comparable(mine, foreign) == _comparable(self._shifted(row, session), foreign)
                if foreign:
                    session.extra_rows += 1
                    self.sessions[self.names[name]].extra_rows -= 1
        leftover = [row for rows in found.values() for row in rows]
        if stopped:
            self._compare_refusal(event, leftover)
            for session_id, rows in found.items():
                self.sessions[session_id].extra_rows += len(rows)
        else:
            assert leftover == []
        self._compare_files(observed, stopped)

    def _session_of(self, event: dict[str, Any], row: dict[str, Any], recorded: str) -> Seen:
        """The session a row belongs into: the agent's own where its wiring is agent-shared."""
        group_id = row["id"].rsplit(":", 1)[1]
        for wiring in self._wirings(event):
            if wiring["agent_group_id"] == group_id and wiring["session_mode"] == "agent-shared":
                (own,) = [one for one in self.sessions.values() if one.route_key == f'["agent","{group_id}"]']
                return own
        return self.sessions[recorded]

    def _shifted(self, row: dict[str, Any], session: Seen) -> dict[str, Any]:
        return {**row, "seq": row["seq"] + 2 * session.extra_rows}

    def _compare_refusal(self, event: dict[str, Any], leftover: list[dict[str, Any]]) -> None:
        """The sender is told, at the address that answers go to, and the agents that follow still read it."""
        with self.db.read() as session:
            event_id = session.scalars(
                select(InboundEvent.id).where(InboundEvent.platform_message_id == event["message"]["id"])
            ).all()[-1]
            told = session.scalars(
                select(Delivery).where(Delivery.message_out_id.startswith(f"host-refusal-{event_id}-"))
            ).all()
        assert told
        reply_to = event.get("replyTo") or event
        threads = self.fixture["adapters"].get(event["channelType"], {}).get("supports_threads", True)
        for one in told:
            thread_id = reply_to["threadId"] if threads or "replyTo" in event else None
            assert (one.channel_type, one.platform_id) == (reply_to["channelType"], reply_to["platformId"])
            assert (one.thread_id, one.state) == (thread_id, "pending")
            assert re.fullmatch(r"Permission denied: /\w+ requires admin access\.", json.loads(one.content)["text"])
            assert f"{event['message']['id']}:{one.agent_group_id}" not in {row["id"] for row in leftover}

    def _compare_files(self, observed: dict[str, Any], stopped: bool) -> None:
        expected = {
            (self.names[name], file["path"], base64.b64decode(file["base64"]))
            for name, files in observed.get("files_new", {}).items()
            for file in files
        }
        found = {(one.id, path, data) for one in self.sessions.values() for path, data in self._new_files(one)}
        if not {session for session, _, _ in expected} - {session for session, _, _ in found} and not stopped:
            assert {(path, data) for _, path, data in found} == {(path, data) for _, path, data in expected}
        assert {file[1:] for file in expected} <= {file[1:] for file in found}

    def _compare_signals(self, observed: dict[str, Any], result: RouteResult) -> None:
        if "threw" in observed:
            return
        typing = [[one.address.channel_type, one.address.platform_id, one.address.thread_id] for one in result.typing]
        assert typing == observed.get("typing", [])
        woken = [one.session_id for one in result.typing]
        assert {one for one, touched in result.touched.items() if touched.trigger} == set(woken)
        assert len(woken) == len(observed["wakes"])
        subscribed = [
            [one.platform_id, one.thread_id]
            for one in result.subscriptions
            if self.fixture["adapters"].get(one.channel_type, {}).get("subscribe")
        ]
        assert subscribed == observed.get("subscribes", [])

    def _compare_drop(self, event_id: str, observed: dict[str, Any], defects: set[str]) -> None:
        with self.db.read() as session:
            state = session.scalars(select(InboundEvent.state).where(InboundEvent.id == event_id)).one()
            found = session.scalars(select(Drop).where(Drop.event_id == event_id)).one_or_none()
        assert state == ("routed" if observed.get("rows_new") or (found is None) else state)
        calls = observed.get("drop_calls", [])
        if not calls:
            assert found is None or found.reason in SILENT or "denied_admin_throws" in defects
            return
        first = calls[0]
        assert found is not None
        assert (found.user_id, found.sender_name, found.reason, found.agent_group_id) == (
            first["user_id"],
            first["sender_name"],
            first["reason"],
            first["agent_group_id"],
        )
        assert (found.channel_type, found.platform_id) == (first["channel_type"], first["platform_id"])
        assert first["messaging_group_id"].startswith("auto") or found.messaging_group_id == first["messaging_group_id"]

    def _users(self) -> dict[str, tuple[str, str | None]]:
        with self.db.read() as session:
            rows = session.execute(select(User.id, User.kind, User.display_name))
            return {user_id: (kind, name) for user_id, kind, name in rows}

    def _compare_users(self, event: dict[str, Any], observed: dict[str, Any], before: dict[str, Any]) -> None:
        """New users as recorded; a known one has the name that the message carries, which NanoClaw 2 never noticed."""
        after = self._users()
        new = {user_id: after[user_id] for user_id in after.keys() - before.keys()}
        assert new == {user["id"]: (user["kind"], user["display_name"]) for user in observed.get("users", [])}
        changed = {user_id: after[user_id] for user_id in before if after[user_id] != before[user_id]}
        for user_id, (kind, name) in changed.items():
            assert (kind, name) == (before[user_id][0], json.loads(event["message"]["content"])["senderName"])

    def _compare_chat(self, event: dict[str, Any], observed: dict[str, Any]) -> None:
        """A mention registers its chat. (The chats of approvers are made with the approval cards.)"""
        here = {"channel_type": event["channelType"], "platform_id": event["platformId"]}
        for chat in observed.get("messaging_groups", []):
            if {"channel_type": chat["channel_type"], "platform_id": chat["platform_id"]} == here:
                with self.db.read() as session:
                    mine = session.scalars(select(Chat).filter_by(**here)).one()
                assert (mine.is_group, mine.unknown_sender_policy) == (chat["is_group"], chat["unknown_sender_policy"])
                assert (mine.denied_at is not None) == chat["denied"]

    def _folder(self, one: Seen) -> SessionFolder:
        return SessionFolder.of(self.data_dir, one.place[0], one.id)

    def _new_rows(self, one: Seen) -> list[dict[str, Any]]:
        path = self._folder(one).inbound_db
        if not path.exists():
            return []
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM messages_in ORDER BY seq")]
        connection.close()
        new, one.rows = rows[one.rows :], len(rows)
        return new

    def _new_files(self, one: Seen) -> list[tuple[str, bytes]]:
        inbox = self._folder(one).inbox
        files = {str(path.relative_to(inbox.parent)): path for path in inbox.glob("*/*")}
        new = files.keys() - one.files
        one.files |= new
        return [(_without_time(name), files[name].read_bytes()) for name in new]


def _without_time(value: str) -> str:
    return re.sub(r"attachment-\d+", "attachment-<TS>", value)


def _comparable(row: dict[str, Any], foreign: bool) -> dict[str, Any]:
    fields = ["id", "kind", "trigger", "status", "on_wake", "platform_id", "channel_type", "thread_id", "timestamp"]
    found = {name: row[name] for name in fields}
    found["content"] = _without_time(row["content"])
    if not foreign:
        found["seq"] = row["seq"]
    return found
