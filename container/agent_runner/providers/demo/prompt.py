"""Reading a prompt back: its messages, tasks and webhooks in order."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent_runner.providers.contract import Prompt

_ELEMENT = re.compile(r'<(message|task|webhook)((?: [a-z_]+="[^"]*")*)>(.*?)</\1>', re.DOTALL)
_ATTRIBUTE = re.compile(r' ([a-z_]+)="([^"]*)"')
_QUOTE = re.compile(r"\A\n  <quoted_message .*?</quoted_message>\n", re.DOTALL)
_NOTICE = re.compile(r"\A<system>.*</system>\Z", re.DOTALL)
_REFUSED = re.compile(r"no destination named (.+?)\. Your destinations: (.*?)\. Send it again", re.DOTALL)


class Heard(NamedTuple):
    """One element. `origin` is the name of a destination, or None when it has none we could answer to."""

    kind: str
    origin: str | None
    sender: str
    text: str
    asks: bool


class Refused(NamedTuple):
    """The runner's word that an answer reached nobody: the destinations that do not exist, and those that do."""

    unknown: str
    known: str


def read(prompt: Prompt) -> list[Heard]:
    return [_heard(match, prompt.asks) for match in _ELEMENT.finditer(prompt.text)]


def is_notice(prompt: Prompt) -> bool:
    """Whether the runner itself speaks, about an answer that was not delivered."""
    return bool(_NOTICE.match(prompt.text))


def refusal(prompt: Prompt) -> Refused | None:
    match = _REFUSED.search(prompt.text)
    return Refused(match[1], match[2]) if match else None


def unescape(text: str) -> str:
    return text.replace("&quot;", '"').replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")


def _heard(match: re.Match[str], asks: frozenset[int]) -> Heard:
    kind, body = match[1], match[3]
    attributes = {name: unescape(value) for name, value in _ATTRIBUTE.findall(match[2])}
    origin = attributes.get("from")
    if origin is not None and origin.startswith("unknown:"):
        origin = None
    if kind == "message":
        number = attributes.get("id")
        asking = number is None or int(number) in asks
        return Heard(kind, origin, attributes["sender"], unescape(_QUOTE.sub("", body)), asking)
    if kind == "task":
        return Heard(kind, origin, "", body.partition("Instructions:\n")[2], True)
    return Heard(kind, origin, attributes.get("source", ""), attributes.get("event", ""), True)
