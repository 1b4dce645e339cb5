"""Appending routes to session files: once, in order, with their attachments, whatever dies in between."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, update

from nanotasks import signals
from nanotasks.agents.sessions import set_status
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import Drop, InboundEvent, InboundRoute, MediaBlob
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import ConfigError, NotFoundError
from nanotasks.intake import append, tasks
from nanotasks.intake.append import Appended, append_session, tell_of_failure
from nanotasks.intake.closed import CLOSED
from nanotasks.intake.operator import ask_again
from nanotasks.session.errors import SessionFileError
from nanotasks.session.inbound import open_inbound

if TYPE_CHECKING:
    from .conftest import House


def only_session(house: House) -> AgentSession:
    (session,) = house.sessions()
    return session


def append_only(house: House) -> Appended:
    return append_session(house.db, house.data_dir, only_session(house).id)


def blobs(house: House) -> int:
    with house.db.read() as session:
        return session.scalars(select(func.count()).select_from(MediaBlob)).one()


def test_routes_become_rows_in_their_order(house: House) -> None:
    """The rows are what the runner reads: even numbers, pending, with the address that answers go to."""
    house.furnish()
    for number in range(3):
        house.say(f"number {number}")
    house.route()
    assert append_only(house) == Appended(3, True)
    rows = house.rows(only_session(house))
    assert [(row["id"], row["seq"], row["trigger"], row["status"]) for row in rows] == [
        ("m1:ag-andy", 2, 1, "pending"),
        ("m2:ag-andy", 4, 1, "pending"),
        ("m3:ag-andy", 6, 1, "pending"),
    ]
    assert {(row["channel_type"], row["platform_id"], row["timestamp"]) for row in rows} == {
        ("file", "family", "2026-03-01T12:00:00.000Z")
    }
    assert [route.state for route in house.routes()] == ["appended"] * 3


def test_a_session_that_is_woken_is_due(house: House) -> None:
    """A row with trigger 1 makes the session due at once, and its due version is counted up."""
    house.furnish()
    house.say()
    house.append(house.route())
    session = only_session(house)
    assert (session.next_due_at, session.due_version) == (0, 1)
    assert session.last_active is not None


def test_context_ends_here_and_wakes_nobody(house: House) -> None:
    """An overheard message is in the file, its route has its end, and the session is not due."""
    house.furnish(engage_mode="mention", engage_pattern=None, ignored_message_policy="accumulate")
    house.say()
    house.route()
    assert append_only(house) == Appended(1, False)
    session = only_session(house)
    assert ([row["trigger"] for row in house.rows(session)], session.next_due_at) == ([0], None)
    assert [route.state for route in house.routes()] == ["context"]


def test_appending_again_does_nothing(house: House) -> None:
    """A signal that comes twice writes once."""
    house.furnish()
    house.say()
    house.append(house.route())
    assert append_only(house) == Appended(0, False)
    assert len(house.rows(only_session(house))) == 1


def test_a_crash_between_the_two_commits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that stand in the file while their routes are still pending are found, not written again."""
    house.furnish()
    attachment = {"attachments": [{"name": "a.txt", "data": "eA=="}]}
    house.say("first", content=attachment)
    house.route()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(append, "_mark", die)
        append_only(house)
    session = only_session(house)
    assert (len(house.rows(session)), house.routes()[0].state, session.next_due_at) == (1, "pending", None)
    house.say("second")
    house.route()
    assert append_only(house) == Appended(2, True)
    assert house.texts(session) == ["first", "second"]
    assert [row["seq"] for row in house.rows(session)] == [2, 4]
    assert [path.name for path in house.folder(session).inbox.glob("*/*")] == ["a.txt"]


def test_a_crash_before_the_commit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but files was written, and they are written again under the same names."""
    house.furnish()
    house.say(content={"attachments": [{"type": "photo", "data": "eA=="}]})
    house.route()

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("nanotasks.session.inbound.Inbound.insert", die)
        append_only(house)
    append_only(house)
    session = only_session(house)
    (path,) = house.folder(session).inbox.glob("*/*")
    assert json.loads(house.rows(session)[0]["content"])["attachments"] == [
        {"type": "photo", "name": path.name, "localPath": f"inbox/m1:ag-andy/{path.name}"}
    ]


def test_attachments_become_files_of_every_session(house: House) -> None:
    """Each agent has its own copy, and the bytes leave the central database when the last one was made."""
    house.furnish("andy", "bea")
    house.say(content={"attachments": [{"name": "a.txt", "data": "aGk="}, {"name": "../x", "data": "eA=="}]})
    result = house.route()
    sessions = list(result.touched)
    append_session(house.db, house.data_dir, sessions[0])
    assert blobs(house) == 2
    append_session(house.db, house.data_dir, sessions[1])
    assert blobs(house) == 0
    for session in house.sessions():
        files = {path.name: path.read_bytes() for path in house.folder(session).inbox.glob("*/*")}
        assert files.pop("a.txt") == b"hi"
        assert list(files.values()) == [b"x"]
        assert all(name.startswith("attachment-") for name in files)


def test_media_of_a_message_that_waits_for_approval_stay(house: House) -> None:
    """What can still be replayed keeps its attachments."""
    house.furnish()
    event_id = house.say(content={"attachments": [{"name": "a.txt", "data": "aGk="}]})
    result = house.route()
    waiting = Drop(
        id="d",
        event_id=event_id,
        channel_type="file",
        platform_id="family",
        reason="unknown_sender_request_approval",
        created_at=1,
    )
    house.add(waiting)
    house.append(result)
    assert blobs(house) == 1


def test_somebody_elses_bytes_cannot_be_asked_for(house: House) -> None:
    """A blob belongs to its event: a message that names another one's gets nothing."""
    house.furnish()
    house.say(content={"attachments": [{"name": "secret.txt", "data": "aGk="}]})
    house.route()
    with house.db.read() as session:
        blob_id = session.scalars(select(MediaBlob.id)).one()
    house.say(content={"attachments": [{"name": "stolen.txt", "blobId": blob_id}]})
    house.append(house.route())
    names = {path.name for path in house.folder(only_session(house)).inbox.glob("*/*")}
    assert names == {"secret.txt"}


def test_two_appenders_at_once(house: House) -> None:
    """The lock of the file is the claim: every row is written once, in route order."""
    house.furnish()
    for number in range(60):
        house.say(f"number {number}")
    house.route()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: append_only(house), range(4)))
    assert sum(one.routes for one in done) == 60
    assert house.texts(only_session(house)) == [f"number {number}" for number in range(60)]


def test_more_routes_than_one_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long backlog is appended in portions, all of it."""
    house.furnish()
    for number in range(12):
        house.say(f"number {number}")
    house.route()
    monkeypatch.setattr(append, "_UNAPPENDED", append._UNAPPENDED.limit(5))
    assert append_only(house).routes == 12
    assert house.texts(only_session(house)) == [f"number {number}" for number in range(12)]


def test_a_poisonous_session_holds_up_nobody_else(small_house: House) -> None:
    """A damaged file is an error of its session only: recorded on it, its routes kept, forgotten once it works."""
    house = small_house.furnish("andy", "bea")
    house.say("first")
    result = house.route()
    house.append(result)
    andy, bea = house.sessions()
    healthy = house.folder(andy).inbound_db.read_bytes()
    house.folder(andy).inbound_db.write_bytes(b"this is no database" * 100)
    house.say("second")
    house.route()
    with pytest.raises(SessionFileError):
        append_session(house.db, house.data_dir, andy.id)
    append_session(house.db, house.data_dir, bea.id)
    assert house.texts(bea) == ["first", "second"]
    assert "SessionFileError" in (next(one for one in house.sessions() if one.id == andy.id).append_error or "")
    house.folder(andy).inbound_db.write_bytes(healthy)
    append_session(house.db, house.data_dir, andy.id)
    assert house.texts(andy) == ["first", "second"]
    assert next(one for one in house.sessions() if one.id == andy.id).append_error is None


def test_a_chat_is_told_once_that_its_message_is_kept(small_house: House) -> None:
    """When it has waited for long before files that cannot be used; not at the first failure."""
    house = small_house.furnish()
    first = house.say("hello")
    house.route()
    (session,) = house.sessions()
    assert tell_of_failure(house.db, house.settings, session.id) is False
    with house.db.write() as db:
        db.execute(update(InboundRoute).values(created_at=InboundRoute.created_at - 120_000))
    assert tell_of_failure(house.db, house.settings, session.id) is True
    assert tell_of_failure(house.db, house.settings, session.id) is False
    house.say("another")
    house.route()
    tell_of_failure(house.db, house.settings, session.id)
    with house.db.read() as db:
        (told,) = db.scalars(select(Delivery)).all()
    assert (told.platform_id, told.message_out_id) == ("family", f"host-kept-{house.routes()[0].id}")
    assert "Your message is kept" in told.content
    assert first == house.routes()[0].event_id


def test_a_folder_that_cannot_be_made(small_house: House) -> None:
    """A disk that takes nothing is said, and the message waits."""
    house = small_house.furnish()
    house.data_dir.parent.mkdir(exist_ok=True)
    house.data_dir.write_text("a file where the folder should be")
    house.say()
    house.route()
    with pytest.raises(SessionFileError, match="cannot be written"):
        append_only(house)
    assert house.routes()[0].state == "pending"


def test_a_message_whose_attachment_finds_no_room_waits_with_it(
    small_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its route stays pending and its bytes stay in the central database, until the disk has room again."""
    house = small_house.furnish()
    house.say("first")
    house.append(house.route())
    house.say("second", content={"attachments": [{"name": "a.txt", "data": "aGk="}]})
    house.route()

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(SessionFileError, match="No space left"):
        patched.setattr(os, "fsync", full)
        append_only(house)
    session = only_session(house)
    assert ([route.state for route in house.routes()], blobs(house)) == (["appended", "pending"], 1)
    assert house.texts(session) == ["first"]
    append_only(house)
    (path,) = house.folder(session).inbox.glob("*/*")
    assert (path.name, path.read_bytes(), blobs(house)) == ("a.txt", b"hi", 0)


def test_an_unknown_session(small_house: House) -> None:
    """A signal for a session that was deleted says so."""
    with pytest.raises(NotFoundError):
        append_session(small_house.db, small_house.data_dir, "sess-gone")


def test_seqs_stay_ahead_of_the_agents(small_house: House) -> None:
    """A host row is numbered after everything the agent has written."""
    house = small_house.furnish()
    house.say("first")
    house.append(house.route())
    folder = house.folder(only_session(house))
    outbound = sqlite3.connect(folder.outbound_db)
    outbound.execute(
        "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES ('o1', 9, datetime('now'), 'chat', '{}')"
    )
    outbound.commit()
    outbound.close()
    house.say("second")
    house.append(house.route())
    assert [row["seq"] for row in house.rows(only_session(house))] == [2, 10]


def test_a_row_of_an_earlier_installation_is_left_alone(small_house: House) -> None:
    """A message that an imported session has already is not written over."""
    house = small_house.furnish()
    house.say("first")
    house.append(house.route())
    session = only_session(house)
    with open_inbound(house.folder(session)) as inbound:
        inbound.complete(["m1:ag-andy"])
    with house.db.write() as central:
        central.execute(update(InboundRoute).values(state="pending"))
    house.append(house.route())
    append_only(house)
    (row,) = house.rows(session)
    assert row["status"] == "completed"


def test_unreadable_timestamps_become_the_time_of_arrival(small_house: House) -> None:
    """A platform's time that cannot be read does not stop the message."""
    house = small_house.furnish()
    event_id = house.say()
    with house.db.write() as central:
        central.execute(update(InboundEvent).values(timestamp="yesterday", received_at=1_772_366_096_789))
    house.append(house.route())
    assert house.event(event_id).state == "routed"
    assert house.rows(only_session(house))[0]["timestamp"] == "2026-03-01T11:54:56.789Z"


def close(house: House) -> None:
    with house.db.write() as session:
        set_status(session, session.get_one(AgentSession, only_session(house).id), "closed")


def told(house: House) -> list[tuple[str | None, str | None, str]]:
    with house.db.read() as session:
        rows = session.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.id))
        return [(one.platform_id, one.thread_id, json.loads(one.content)["text"]) for one in rows]


def test_closing_a_session_ends_what_it_has_not_answered(house: House) -> None:
    """Appended or not, its messages are dead, and the chat is told once, by a message of the host."""
    house.furnish()
    house.say("appended")
    house.append(house.route())
    house.say("pending")
    house.route()
    close(house)
    assert [(route.state, route.error) for route in house.routes()] == [("dead", "its session was closed")] * 2
    assert told(house) == [("family", None, CLOSED)]
    assert append_only(house) == Appended()
    assert told(house) == [("family", None, CLOSED)]


def test_closing_a_session_tells_nobody_who_has_an_answer(house: House) -> None:
    """A known reply ends its message as it should: answered, or completed while it is on its way."""
    house.furnish()
    for text in ("one", "two"):
        house.say(text)
    house.append(house.route())
    session = only_session(house)
    for number, state in ((1, "delivered"), (2, "retrying")):
        house.add(
            Delivery(
                id=f"d{number}",
                session_id=session.id,
                agent_group_id="ag-andy",
                host_id="here",
                message_out_id=f"o{number}",
                in_reply_to=f"m{number}:ag-andy",
                seq=number,
                lane="a lane",
                kind="chat",
                channel_type="file",
                platform_id="family",
                content="{}",
                state=state,
                created_at=1,
            )
        )
    close(house)
    assert [route.state for route in house.routes()] == ["answered", "completed"]
    with house.db.read() as central:
        assert len(central.scalars(select(Delivery)).all()) == 2


def test_a_message_routed_to_a_session_that_was_closed_meanwhile_ends(house: House) -> None:
    """Its router saw the session open; the append ends it with a notice instead of waking nobody."""
    house.furnish()
    house.say()
    house.route()
    with house.db.write() as session:
        session.execute(update(AgentSession).values(status="closed"))
    assert append_only(house) == Appended(told=True)
    assert [route.state for route in house.routes()] == ["dead"]
    assert told(house) == [("family", None, CLOSED)]


def test_a_session_that_is_closed_during_an_append_keeps_nothing_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row stands in its file then, and still the message ends."""
    house.furnish()
    house.say()
    house.route()
    mark = append._mark

    def close_first(connection: Any, session_id: str, *args: Any, **named: Any) -> int:
        connection.execute(update(AgentSession).values(status="closed"))
        return mark(connection, session_id, *args, **named)

    monkeypatch.setattr(append, "_mark", close_first)
    assert append_only(house) == Appended(1, told=True)
    assert [route.state for route in house.routes()] == ["dead"]


def test_one_bad_session_keeps_no_other_from_its_signals(small_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with a session's files or path, the next session of the batch is appended to and woken."""
    small_house.furnish("andy", "bea")
    small_house.say()
    settings = replace(small_house.settings, database_url=small_house.db.url.render_as_string(hide_password=False))
    monkeypatch.setattr(tasks, "settings", lambda: settings)
    rung: list[tuple[Any, ...]] = []
    monkeypatch.setattr(signals, "answer", lambda work, _kind, *ids, task_id: work(*ids))
    monkeypatch.setattr(signals, "poke", lambda *_ids: None)
    monkeypatch.setattr(signals, "ring", lambda *ids: rung.append(ids))
    append_whole, appended = append.append_session, []

    def append_one(db: Any, data_dir: Any, session_id: str) -> Appended:
        appended.append(session_id)
        if len(appended) == 1:
            raise ConfigError("The path of a session's database is too long.")
        return append_whole(db, data_dir, session_id)

    monkeypatch.setattr(append, "append_session", append_one)
    tasks.route("file", "family")
    assert len(appended) == 2
    assert rung == [("wake", appended[1], "here")]


def test_a_message_that_ended_without_an_answer_may_be_asked_again(house: House) -> None:
    """By an operator: as a new row, since the old one has failed for good."""
    house.furnish()
    event_id = house.say("hello")
    house.append(house.route())
    (agent_session,) = house.sessions()
    with open_inbound(house.folder(agent_session)) as inbound:
        inbound.fail(["m1:ag-andy"])
    with house.db.write() as session:
        session.execute(update(InboundRoute).values(state="dead", error="why", finished_at=1))
        again = ask_again(session, session.get_one(InboundEvent, event_id))
    assert again == [agent_session.id]
    append_session(house.db, house.data_dir, agent_session.id)
    assert [(row["id"], row["status"]) for row in house.rows(agent_session)] == [
        ("m1:ag-andy", "failed"),
        ("m1:ag-andy~2", "pending"),
    ]
    (route,) = house.routes()
    assert (route.state, route.error) == ("appended", None)
