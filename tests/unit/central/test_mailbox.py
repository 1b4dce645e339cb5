"""The mailbox and the progress of events, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update

from nanotasks.central import Database, mailbox, progress
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession


def put(central: Database, delivery_id: str, chat: str = "local") -> int:
    with central.write() as session:
        return mailbox.put(
            session,
            channel_type="terminal",
            platform_id=chat,
            thread_id=None,
            delivery_id=delivery_id,
            kind="chat",
            content={"text": delivery_id},
            files=[{"name": "a.txt", "size": 1}],
            now=7,
        )


def add_session(central: Database) -> None:
    with central.write() as session:
        session.add(AgentGroup(id="ag-1", name="Andy", folder="andy", created_at=1))
        session.flush()
        session.add(AgentSession(id="s-1", agent_group_id="ag-1", route_key="s-1", created_at=1))


def add_delivery(central: Database, delivery_id: str, state: str = "delivered") -> None:
    with central.write() as session:
        session.add(
            Delivery(
                id=delivery_id,
                session_id="s-1",
                agent_group_id="ag-1",
                message_out_id=delivery_id,
                seq=1,
                lane="s-1|terminal|local",
                kind="chat",
                content="{}",
                state=state,
                created_at=1,
            )
        )


def test_a_delivery_is_one_item(central: Database) -> None:
    """Put twice it keeps its number, also by many at the same time."""
    with ThreadPoolExecutor(4) as pool:
        numbers = set(pool.map(lambda _: put(central, "d-1"), range(8)))
    assert len(numbers) == 1
    assert put(central, "d-2") not in numbers


def test_letters_say_who_sent_them(central: Database) -> None:
    """The agent's name comes from the ledger, where it knows the delivery."""
    add_session(central)
    add_delivery(central, "d-1")
    known, unknown = put(central, "d-1"), put(central, "d-2")
    with central.read() as session:
        first, second = mailbox.letters(session, [unknown, known])
    assert (first.item, first.agent, first.content, first.files, first.created_at) == (
        known,
        "Andy",
        {"text": "d-1"},
        [{"name": "a.txt", "size": 1}],
        7,
    )
    assert second.agent is None


def test_an_item_is_unshown_until_it_is_marked(central: Database) -> None:
    """By chat, oldest first; marking twice is no news."""
    one, two, other = put(central, "d-1"), put(central, "d-2"), put(central, "d-3", "den")
    with central.write() as session:
        assert mailbox.unshown(session, "terminal", ["local"], 10) == [(one, "local", "d-1"), (two, "local", "d-2")]
        assert mailbox.unshown(session, "terminal", ["local", "den"], 1) == [(one, "local", "d-1")]
        assert mailbox.unshown(session, "file", ["local"], 10) == []
        assert mailbox.mark_shown(session, [one, other], 9) == 2
        assert mailbox.mark_shown(session, [one], 9) == 0
        assert mailbox.unshown(session, "terminal", ["local", "den"], 10) == [(two, "local", "d-2")]


def test_newer_items_follow_a_number(central: Database) -> None:
    """Of any chat, shown or not."""
    with central.read() as session:
        assert mailbox.last_item(session) == 0
    one, two = put(central, "d-1"), put(central, "d-2", "den")
    with central.write() as session:
        mailbox.mark_shown(session, [two], 9)
        assert [letter.item for letter in mailbox.newer(session, "terminal", one, 10)] == [two]
        assert [letter.item for letter in mailbox.newer(session, "terminal", 0, 1)] == [one]
        assert mailbox.last_item(session) == two


def test_progress_gathers_what_became_of_an_event(central: Database) -> None:
    """Its state and reason, its routes, and whether something is on its way to its chat."""
    add_session(central)
    with central.write() as session:
        for number, state in enumerate(("routed", "dropped", "pending")):
            session.add(
                InboundEvent(
                    id=f"e-{number}",
                    channel_type="terminal",
                    platform_id="local",
                    platform_message_id=f"m-{number}",
                    digest="",
                    accept_order=number,
                    kind="chat",
                    timestamp="",
                    content="{}",
                    received_at=1,
                    state=state,
                )
            )
        session.flush()
        session.add(
            Drop(id="x", event_id="e-1", channel_type="terminal", platform_id="local", reason="because", created_at=1)
        )
        session.add(
            InboundRoute(
                event_id="e-0",
                session_id="s-1",
                agent_group_id="ag-1",
                trigger=1,
                inbound_id="m-0",
                state="completed",
                created_at=1,
            )
        )

    def look() -> dict[str, progress.Progress]:
        with central.read() as session:
            return progress.of_events(session, ["e-0", "e-1", "e-2", "e-9"])

    assert look() == {
        "e-0": progress.Progress("routed", None, ["completed"], False),
        "e-1": progress.Progress("dropped", "because", [], False),
        "e-2": progress.Progress("pending", None, [], False),
    }
    add_delivery(central, "d-1", "retrying")
    assert look()["e-0"].is_delivering
    with central.write() as session:
        session.execute(update(Delivery).values(state="parked"))
    assert not look()["e-0"].is_delivering
