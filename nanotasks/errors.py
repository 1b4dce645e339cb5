"""The error tree. An error says what happened, why, and what to do; the docstring is the default `what`.

`exit_code` is what the command line exits with; `code` is the word in JSON output and HTTP answers.
"""

from __future__ import annotations

from typing import Any, ClassVar


class NanotasksError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str | None = None, *, why: str = "", fix: str = "") -> None:
        self.what = what or (type(self).__doc__ or "").strip().splitlines()[0]
        self.why = why
        self.fix = fix
        super().__init__(self.what)

    def __str__(self) -> str:
        *first, last = (part for part in (self.what, self.why, self.fix) if part)
        return " ".join([*(_sentence(part) for part in first), last])

    def as_json(self) -> dict[str, Any]:
        """`{code, what, why, fix}`, the form used by `--json` and by the HTTP API."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}


def _sentence(text: str) -> str:
    """What comes from elsewhere may lack the full stop before the next sentence."""
    return text if text.endswith((".", "!", "?", ":", "…")) else f"{text}."


class UsageError(NanotasksError):
    """The command cannot be understood."""

    code = "usage"
    exit_code = 2


class NotFoundError(NanotasksError):
    """There is nothing with that id."""

    code = "not_found"
    exit_code = 3


class ConflictError(NanotasksError):
    """That is already there, or in use."""

    code = "conflict"
    exit_code = 4


class InvalidError(NanotasksError):
    """A value is not acceptable."""

    code = "invalid"
    exit_code = 2


class UnauthorizedError(NanotasksError):
    """The request does not prove who sent it."""

    code = "unauthorized"


class TooManyError(NanotasksError):
    """Too much is waiting already."""

    code = "too_many"

    def __init__(self, what: str | None = None, *, retry_after_s: float, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after_s = retry_after_s


class DependencyDownError(NanotasksError):
    """Something nanotasks depends on does not answer."""

    code = "dependency_down"
    exit_code = 69


class ConfigError(NanotasksError):
    """The configuration is not usable."""

    code = "configuration"
    exit_code = 78


class HostileFileError(NanotasksError):
    """A file that the agent controls is not what it should be, and was not opened."""

    code = "hostile_file"


class StaleOwnerError(NanotasksError):
    """Somebody else owns this work now."""

    code = "stale_owner"
