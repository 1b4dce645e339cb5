"""What the text of a model's result means: blocks to deliver, and scratch that nobody sees. Pure.

    <message to="family">Dinner is at eight.</message>     delivered to the destination `family`
    <internal>they seem tired</internal>                   never delivered, wherever it stands
    anything else                                          scratch: not delivered either

`internal` elements are taken out first, with those nested in them, so that nothing inside one is delivered and a
block that contains one is delivered without it. A tag without its partner is plain text. A block opens with exactly
`<message to="NAME">` and ends at the next `</message>`; entities are not decoded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent_runner.values import WHITESPACE, trim

_INTERNAL_TAG = re.compile(r"<(/?)internal>")
_BLOCK = re.compile(f'<message[{WHITESPACE}]+to="([^"]+)"[{WHITESPACE}]*>(.*?)</message>', re.DOTALL)


class Block(NamedTuple):
    """One `<message>`: a destination's name as it was written, and the trimmed text."""

    to: str
    text: str


class Output(NamedTuple):
    blocks: tuple[Block, ...]
    scratch: str


def parse(text: str) -> Output:
    """The blocks of a result in order, and everything outside of them, trimmed."""
    visible = strip_internal(text)
    blocks = tuple(Block(match[1], trim(match[2])) for match in _BLOCK.finditer(visible))
    return Output(blocks, trim(_BLOCK.sub("", visible)))


def strip_internal(text: str) -> str:
    """`text` without its `internal` elements."""
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    for tag in _INTERNAL_TAG.finditer(text):
        if not tag[1]:
            opened.append(tag.start())
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:  # nested in this one
                spans.pop()
            spans.append((start, tag.end()))
    kept, end = [], 0
    for start, stop in spans:
        kept.append(text[end:start])
        end = stop
    return "".join([*kept, text[end:]])
