"""Who may talk to an agent (NanoClaw 2's rules): roles, unknown senders, and the sender scope of a wiring.

An owner is always global; an admin is global or of one agent group; both are members everywhere they rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Access(StrEnum):
    """Why somebody may, or may not, talk to an agent group."""

    OWNER = "owner"
    GLOBAL_ADMIN = "global_admin"
    ADMIN_OF_GROUP = "admin_of_group"
    MEMBER = "member"
    UNKNOWN_USER = "unknown_user"
    NOT_MEMBER = "not_member"

    @property
    def allowed(self) -> bool:
        return self not in {Access.UNKNOWN_USER, Access.NOT_MEMBER}


@dataclass(frozen=True)
class Standing:
    """What is recorded about one user. The two sets hold agent group ids."""

    known: bool = True
    owner: bool = False
    global_admin: bool = False
    admin_of: frozenset[str] = frozenset()
    member_of: frozenset[str] = frozenset()


NOBODY = Standing(known=False)


def access_to(standing: Standing, agent_group_id: str) -> Access:
    """Whether this user may talk to the agent group, by the strongest reason."""
    if not standing.known:
        return Access.UNKNOWN_USER
    if standing.owner:
        return Access.OWNER
    if standing.global_admin:
        return Access.GLOBAL_ADMIN
    if agent_group_id in standing.admin_of:
        return Access.ADMIN_OF_GROUP
    return Access.MEMBER if agent_group_id in standing.member_of else Access.NOT_MEMBER


def may_administer(standing: Standing, agent_group_id: str) -> bool:
    """Whether this user may give the agent group's admin commands and decide its approvals."""
    return standing.owner or standing.global_admin or agent_group_id in standing.admin_of


@dataclass(frozen=True)
class Gate:
    """The answer of a gate; a refusal may have a reason that goes into the drop log."""

    allowed: bool
    reason: str | None = None


_ALLOWED = Gate(True)
_REFUSED = Gate(False)
AWAITS_APPROVAL = "unknown_sender_request_approval"
_REASONS = {"strict": "unknown_sender_strict", "request_approval": AWAITS_APPROVAL}


def access_gate(policy: str, standing: Standing, agent_group_id: str) -> Gate:
    """The chat's policy on unknown senders: public lets everybody in, the others only whoever has access.

    An unknown policy refuses too, without a reason of its own.
    """
    if policy == "public" or access_to(standing, agent_group_id).allowed:
        return _ALLOWED
    return Gate(False, _REASONS.get(policy))


def scope_gate(scope: str, standing: Standing, agent_group_id: str) -> Gate:
    """The wiring's own scope: `known` wants access even where the chat is public."""
    return _REFUSED if scope == "known" and not access_to(standing, agent_group_id).allowed else _ALLOWED
