"""JSON from outside is storable everywhere, or refused with the place and the reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.channels.json_text import MAX_DEPTH, parse, parse_object
from nanotasks.errors import InvalidError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_ordinary_json_is_read_as_it_is(value: object) -> None:
    """What any writer of JSON makes comes back unchanged."""
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "line 1"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1}\n{"b": 2}', "line 2"),
        (b"\xff", "Byte 0"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"1e999", "too large"),
        (b"9" * 5000, "digits"),
        (b"[" * 100_000, "recursion|levels"),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "levels"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_some_reader_would_refuse_is_refused(raw: bytes, why: str) -> None:
    """With the reason, whatever the text."""
    with pytest.raises(InvalidError, match=why):
        parse(raw)


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    """No database could hold it; a whole pair stays a character. Keys too."""
    assert parse(b'{"\\ud800": ["a\\udc00b", "\\ud83d\\ude00"]}') == {"\ufffd": ["a\ufffdb", "\U0001f600"]}


def test_a_byte_order_mark_is_passed_over() -> None:
    """Editors on other systems write one."""
    assert parse(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(("raw", "kind"), [("[]", "a list"), ("null", "null"), ("true", "true"), ("1", "a number")])
def test_another_kind_of_value_is_named(raw: str, kind: str) -> None:
    """Where an object is needed."""
    with pytest.raises(InvalidError, match=kind):
        parse_object(raw)
