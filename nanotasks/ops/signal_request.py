"""How a worker takes a Celery message: too old is told by the clock that its sender used, which is Redis's."""

from __future__ import annotations

from typing import Literal

from celery import Celery
from celery.worker.request import Request


class SignalRequest(Request):
    """Celery's request, but for its age."""

    _app: Celery

    def maybe_expire(self) -> Literal[True] | None:
        """Whether the message is too old to be worth its work.

        Celery compares with the receiver's own clock, and an hour between two hosts would make every signal too old
        or everlasting. It also revokes the task id for hours, which later attempts of the same delivery share.
        """
        if self.expires is not None and self._app.now() > self.expires:
            return True
        return None
