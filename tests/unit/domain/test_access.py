"""Who may talk to an agent, and what a command may do."""

from __future__ import annotations

import pytest

from nanotasks.domain.access import NOBODY, Access, Gate, Standing, access_gate, access_to, may_administer, scope_gate
from nanotasks.domain.commands import CommandGate, command_of, gate_command, refusal

STRANGER = Standing()
PEOPLE = {
    "nobody": NOBODY,
    "stranger": STRANGER,
    "owner": Standing(owner=True),
    "global admin": Standing(global_admin=True),
    "admin of a": Standing(admin_of=frozenset({"a"})),
    "member of a": Standing(member_of=frozenset({"a"})),
    "owner and member": Standing(owner=True, member_of=frozenset({"a"})),
}


@pytest.mark.parametrize(
    ("who", "in_a", "in_b", "rules_a"),
    [
        ("nobody", Access.UNKNOWN_USER, Access.UNKNOWN_USER, False),
        ("stranger", Access.NOT_MEMBER, Access.NOT_MEMBER, False),
        ("owner", Access.OWNER, Access.OWNER, True),
        ("global admin", Access.GLOBAL_ADMIN, Access.GLOBAL_ADMIN, True),
        ("admin of a", Access.ADMIN_OF_GROUP, Access.NOT_MEMBER, True),
        ("member of a", Access.MEMBER, Access.NOT_MEMBER, False),
        ("owner and member", Access.OWNER, Access.OWNER, True),
    ],
)
def test_roles(who: str, in_a: Access, in_b: Access, rules_a: bool) -> None:
    """Owners and admins are members where they rule; the strongest reason counts."""
    person = PEOPLE[who]
    assert (access_to(person, "a"), access_to(person, "b")) == (in_a, in_b)
    assert may_administer(person, "a") is rules_a
    assert in_a.allowed is (who not in {"nobody", "stranger"})


@pytest.mark.parametrize(
    ("policy", "who", "expected"),
    [
        ("public", "nobody", Gate(True)),
        ("strict", "member of a", Gate(True)),
        ("strict", "stranger", Gate(False, "unknown_sender_strict")),
        ("strict", "nobody", Gate(False, "unknown_sender_strict")),
        ("request_approval", "admin of a", Gate(True)),
        ("request_approval", "nobody", Gate(False, "unknown_sender_request_approval")),
        ("unheard-of", "owner", Gate(True)),
        ("unheard-of", "stranger", Gate(False)),
    ],
)
def test_unknown_sender_policies(policy: str, who: str, expected: Gate) -> None:
    """Public lets everybody in, the others only whoever has access; a refusal says which policy it was."""
    assert access_gate(policy, PEOPLE[who], "a") == expected


@pytest.mark.parametrize(
    ("scope", "who", "expected"),
    [("all", "nobody", True), ("known", "nobody", False), ("known", "stranger", False), ("known", "member of a", True)],
)
def test_sender_scope(scope: str, who: str, expected: bool) -> None:
    """A wiring for known senders wants access even where the chat is public."""
    assert scope_gate(scope, PEOPLE[who], "a").allowed is expected


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/clear", "/clear"),
        ("  /CLEAR now", "/clear"),
        ("/foo\nbar", "/foo"),
        ("/files\u00a0all", "/files"),
        ("\ufeff/help", "/help"),
        ("not /clear", None),
        ("", None),
        ("/", "/"),
        ("/clear\x1f", "/clear\x1f"),  # Python would call this white space, JavaScript does not
    ],
)
def test_what_is_a_command(text: str, command: str | None) -> None:
    """A slash at the beginning, and what follows up to white space, in lower case."""
    assert command_of(text) == command


@pytest.mark.parametrize(
    ("kind", "text", "is_admin", "expected"),
    [
        ("chat", "/help", True, CommandGate.FILTER),
        ("chat-sdk", "/remote-control now", False, CommandGate.FILTER),
        ("chat", "/clear", True, CommandGate.PASS),
        ("chat", "/clear", False, CommandGate.REFUSE),
        ("chat", "/clearx", False, CommandGate.PASS),
        ("chat", "/start", False, CommandGate.PASS),
        ("chat", "clear", False, CommandGate.PASS),
        ("webhook", "/clear", False, CommandGate.PASS),
    ],
)
def test_the_command_gate(kind: str, text: str, is_admin: bool, expected: CommandGate) -> None:
    """Terminal commands stop, admin commands need an admin, everything else is a message."""
    assert gate_command(kind, text, is_admin=is_admin) is expected


def test_a_refusal_names_the_command() -> None:
    """The sender is told which command it was."""
    assert refusal("  /Clear everything") == "Permission denied: /clear requires admin access."
