"""HTTP posts that end when their deadline does, whatever the other side is doing.

Timeouts of sockets start anew with every byte, so a server that answers one byte at a time outlives them. Here
every post runs on an event loop in one daemon thread of the process, under one timeout from end to end, and
connections are kept and used again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

_ANSWER_BYTES = 64 * 1024
_WRITING = ("http11.send_request_headers.started", "http2.send_request_headers.started")

# At level INFO it prints whole URLs, whose query may carry a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers, and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PostError(Exception):
    """No answer came. `written` says whether the other side may have got the request."""

    def __init__(self, why: str, *, written: bool) -> None:
        super().__init__(why)
        self.written = written


class HttpClient:
    """A thread-safe client of one process; made on first use, after any fork."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._client: httpx.AsyncClient | None = None
        self._thread = threading.Thread(target=self._run, name="http-client", daemon=True)
        self._thread.start()

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Post and wait for the answer, `timeout_s` seconds at most altogether. Raises `PostError`.

        An answer whose status came and whose body did not end in time is an answer.
        """
        exchange = _Exchange(url, body, headers)
        return asyncio.run_coroutine_threadsafe(self._post(exchange, timeout_s), self._loop).result()

    def close(self) -> None:
        """Close connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _post(self, exchange: _Exchange, timeout_s: float) -> Answer:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=None, follow_redirects=False)
        why = ""
        try:
            async with asyncio.timeout(timeout_s):
                await exchange.run(self._client)
        except TimeoutError:
            why = f"No answer within {timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
        if exchange.answer is None:
            raise PostError(why, written=exchange.written)
        return exchange.answer


class _Exchange:
    """One request and what has come back so far."""

    def __init__(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._url = url
        self._body = body
        # The body is read as it comes: an answer cut short in a compressed stream would be no answer.
        self._headers = {"Accept-Encoding": "identity", **headers}
        self.written = False
        self.answer: Answer | None = None

    async def run(self, client: httpx.AsyncClient) -> None:
        extensions = {"trace": self._trace}
        async with client.stream(
            "POST", self._url, content=self._body, headers=self._headers, extensions=extensions
        ) as response:
            self.answer = Answer(response.status_code, response.headers, b"")
            async for chunk in response.aiter_raw():
                self.answer = replace(self.answer, body=self.answer.body + chunk)
                if len(self.answer.body) >= _ANSWER_BYTES:
                    return

    async def _trace(self, event: str, _info: Any) -> None:
        self.written = self.written or event in _WRITING
