"""What a model's text means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.output import Block, parse, strip_internal


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a <internal>x</internal> b", "a  b"),
        ("a<internal>x\ny</internal>b", "ab"),
        ("<internal>1</internal>a<internal>2</internal>", "a"),
        ("<internal>only</internal>", ""),
        ("none", "none"),
        ("<internal>lead</internal>rest", "rest"),
        ("a<internal>b<internal>c</internal>d</internal>e", "ae"),
        ("a<internal>open", "a<internal>open"),
        ("a</internal>b", "a</internal>b"),
        ("<internal>open <internal>x</internal>y", "<internal>open y"),
    ],
)
def test_internal_elements_are_taken_out(text: str, kept: str) -> None:
    """With what is nested in them; a tag without partner is plain text."""
    assert strip_internal(text) == kept


@pytest.mark.parametrize(
    ("text", "blocks", "scratch"),
    [
        ('<message to="a">x</message>', [("a", "x")], ""),
        ('pre <message to="a"> x </message> post', [("a", "x")], "pre  post"),
        ('<message  to="a" >x\ny</message>', [("a", "x\ny")], ""),
        ('<message to="a">1</message><message to="b">2</message>', [("a", "1"), ("b", "2")], ""),
        ('<message to="a"></message>', [("a", "")], ""),
        ('<message to="a">&lt;b&gt;</message>', [("a", "&lt;b&gt;")], ""),
        ('<message to="a" x="1">x</message>', [], '<message to="a" x="1">x</message>'),
        ("<message to='a'>x</message>", [], "<message to='a'>x</message>"),
        ('<message to="">x</message>', [], '<message to="">x</message>'),
        ('<message to="a"/>', [], '<message to="a"/>'),
        ("bare", [], "bare"),
        ("  ", [], ""),
    ],
)
def test_blocks_are_found(text: str, blocks: list[tuple[str, str]], scratch: str) -> None:
    """Exactly one form opens a block; what is outside is scratch."""
    assert parse(text) == (tuple(Block(*block) for block in blocks), scratch)


def test_internal_inside_a_block_is_not_delivered() -> None:
    """NanoClaw 2 delivers it word for word."""
    assert parse('<message to="a">hi <internal>secret</internal>you</message>').blocks == (("a", "hi you"),)


def test_a_block_inside_internal_is_not_delivered() -> None:
    """NanoClaw 2 delivers it."""
    assert parse('<internal><message to="a">draft</message></internal>') == ((), "")


def test_crossed_tags_leak_nothing() -> None:
    """An `internal` from within a block to behind it takes the block's end away: better not sent than leaked."""
    assert parse('<message to="a">x<internal>secret</message>more</internal>').blocks == ()


pieces = st.sampled_from(
    ["<internal>", "</internal>", '<message to="a">', "</message>", "word", " ", "\n", "<", '"', "é"]
)


@given(st.lists(pieces, max_size=14).map("".join))
def test_nothing_is_both_delivered_and_internal(text: str) -> None:
    """After stripping, no complete element is left, and every word comes out at most as often as it went in."""
    stripped = strip_internal(text)
    assert "</internal>" not in stripped.partition("<internal>")[2]
    output = parse(text)
    assert sum(block.text.count("word") for block in output.blocks) + output.scratch.count("word") <= text.count("word")
