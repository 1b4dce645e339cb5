"""What can be wrong with a session's files. A file that the agent tampered with is a `HostileFileError`."""

from __future__ import annotations

from nanotasks.errors import NanotasksError


class SessionFileError(NanotasksError):
    """A file of a session cannot be used."""

    code = "session_file"


class OutboundBusyError(NanotasksError):
    """The agent's outbound.db cannot be read just now."""

    code = "busy"


class HotJournalError(OutboundBusyError):
    """The agent's outbound.db holds half a commit of a process that died.

    The next runner rolls it back when it opens the file; until then it is read from a copy, which only works
    while no runner lives.
    """

    code = "hot_journal"
