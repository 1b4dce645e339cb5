"""What one can ask the demo agent to do."""

from __future__ import annotations

import re
from typing import NamedTuple

HINT = 'I am the demo agent: say "help" to see what I can do.'

HELP = """\
I answer without any model, so that you can try everything else:
echo TEXT - I repeat it
say 3 A|B|C - I send three messages
to NAME: TEXT - I send it to another destination
silent - I say nothing
slow 5 - I answer after five seconds
tool TEXT - I send it with a tool, before my turn is over
file notes.txt TEXT - I send a file
remind 10s TEXT - I say it in ten seconds (s, m, h or d)
every 15m TEXT, cron 0 9 * * * TEXT - I say it again and again
tasks, pause ID, resume ID, cancel ID - what is scheduled, and changing it
count - how many messages I have answered in this conversation
fail - my provider fails ("fail network 2": twice, then it works)
crash - I crash in the middle of my turn
/clear - I forget this conversation"""

_COMMANDS = tuple(
    (verb, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for verb, pattern in (
        ("help", r"(?:help|\?)[.!?]*"),
        ("echo", r"echo\s+(?P<text>.+)"),
        ("say", r"say\s+(?P<number>\d{1,2})\s+(?P<text>.+)"),
        ("to", r"to\s+(?P<name>[^:\n]{1,64}?)\s*:\s*(?P<text>.+)"),
        ("silent", r"silent"),
        ("slow", r"slow\s+(?P<number>\d{1,4}(?:\.\d+)?)(?:\s+(?P<text>.+))?"),
        ("tool", r"tool\s+(?P<text>.+)"),
        # A dot or a slash in the name tells a file from a sentence that begins with the word.
        ("file", r"file\s+(?P<name>[^\s./]*[./]\S*)\s+(?P<text>.+)"),
        ("remind", r"remind\s+(?P<number>\d{1,6})\s*(?P<name>[smhd])\s+(?P<text>.+)"),
        ("every", r"(?P<name>every\s+\d{1,6}\s*[smhdw])\s+(?P<text>.+)"),
        ("cron", r"cron\s+(?P<name>@\w+|(?:\S+\s+){4}\S+)\s+(?P<text>.+)"),
        ("tasks", r"tasks"),
        ("pause", r"pause\s+(?P<name>\S+)"),
        ("resume", r"resume\s+(?P<name>\S+)"),
        ("cancel", r"cancel\s+(?P<name>\S+)"),
        ("count", r"count"),
        (
            "fail",
            r"fail(?:\s+(?P<name>rate_limit|overload|network|session|other))?(?:\s+(?P<number>\d{1,3}))?",
        ),
        ("crash", r"crash"),
    )
)
_MENTION = re.compile(r"\A@\S+[,:]?\s+")


class Command(NamedTuple):
    """`verb` is empty for ordinary text. Absent parts are empty, or 0."""

    verb: str
    name: str = ""
    number: float = 0
    text: str = ""


def parse(text: str) -> Command:
    """The command in a message's text, which may begin with a mention of the agent."""
    bare = _MENTION.sub("", text.strip())
    for verb, pattern in _COMMANDS:
        match = pattern.fullmatch(bare)
        if match:
            parts = {name: value for name, value in match.groupdict().items() if value}
            return Command(verb, parts.get("name", ""), float(parts.get("number", 0)), parts.get("text", ""))
    return Command("")


def standard_answer(sender: str, text: str, context: list[tuple[str, str]]) -> str:
    """The answer to ordinary text: who said what, and what was heard before (pairs of sender and text)."""
    greeting = "Hello!" if sender == "Unknown" else f"Hello {sender}!"
    lines = [f"{greeting} You said: {_shortened(text, 20_000)}"]
    if context:
        heard = "; ".join(f'{name}: "{_shortened(said, 80)}"' for name, said in context)
        lines.append(f"Before that I saw {len(context)} message{'' if len(context) == 1 else 's'}: {heard}")
    return "\n".join([*lines, HINT])


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
