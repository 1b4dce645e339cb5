"""Reading row content of any shape."""

from __future__ import annotations

import pytest

from agent_runner import values
from nanotasks.domain import text


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ('{"text":"x"}', {"text": "x"}),
        ("not json", {"text": "not json"}),
        ("", {"text": ""}),
        ("null", None),
        ("5", 5),
        ("NaN", {"text": "NaN"}),
        ('{"n":1.0}', {"n": 1}),
        ('{"n":1.5e+21}', {"n": 1.5e21}),
        ("[" * 100_000, {"text": "[" * 100_000}),
    ],
)
def test_content_is_json_or_plain_text(raw: str, parsed: object) -> None:
    """Nothing makes parsing fail; what JSON does not know (NaN) is text."""
    assert values.parse_content(raw) == parsed


@pytest.mark.parametrize("value", [None, False, 0, 0.0, ""])
def test_falsy_values_are_replaced_by_defaults(value: object) -> None:
    """As in the original's language."""
    assert values.text_or(value, "default") == "default"


@pytest.mark.parametrize(("value", "text"), [([], "[]"), ({}, "{}"), (5, "5"), (True, "true"), ("x", "x")])
def test_other_values_are_shown_as_what_they_are(value: object, text: str) -> None:
    """An empty list or object is a value, a number is its digits."""
    assert values.text_or(value, "default") == text


def test_compact_json_has_no_spaces() -> None:
    """Readers of the session files look for `"questionId":"x"` as it stands."""
    assert values.to_json({"questionId": "x", "n": [1, "é"]}) == '{"questionId":"x","n":[1,"é"]}'


def test_lone_surrogates_become_storable() -> None:
    """JSON can carry half a character, SQLite cannot store it."""
    assert values.storable("a\ud800b") == "a\ufffdb"
    assert values.storable("🎉 ok") == "🎉 ok"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001, "0.00001"),
        (-0.0000123, "-0.0000123"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (-1.5e-7, "-1.5e-7"),
        (1.25e-10, "1.25e-10"),
        (0.5, "0.5"),
        ("1e-07", '"1e-07"'),
        ('a"1e-07', '"a\\"1e-07"'),
        ({"1e-05": 1e-05}, '{"1e-05":0.00001}'),
    ],
)
def test_small_numbers_are_written_as_javascript_does(value: object, text: str) -> None:
    """The model reads them as NanoClaw 2 wrote them; texts stay as they are."""
    assert values.to_json(value) == text


def test_a_number_beyond_all_bounds_is_null() -> None:
    """As JavaScript's JSON writes its infinity."""
    assert values.to_json(values.parse_content('{"n":1e400,"m":-1e400}')) == '{"n":null,"m":null}'


@pytest.mark.parametrize("space", ["\ufeff", "\u00a0", "\u3000", "\u2028", "\n", "\v"])
def test_white_space_is_the_hosts(space: str) -> None:
    """The host, which decides who may run a command, and the runner, which runs it, see the same words."""
    assert values.trim(f"{space}/clear{space}") == "/clear"
    assert values.first_word(f"/clear{space}now") == "/clear"


@pytest.mark.parametrize("other", ["\x1c", "\x1d", "\x1e", "\x1f", "\x85"])
def test_what_only_python_takes_for_white_space_is_none(other: str) -> None:
    """A command behind it is none to the host, so it must be none here."""
    assert values.trim(f"{other}/clear") == f"{other}/clear"
    assert values.first_word(f"/clear{other}now") == f"/clear{other}now"


def test_the_runner_and_the_host_know_the_same_white_space() -> None:
    """The two share no code, but must agree on what a command is."""
    assert values.WHITESPACE == text.WHITESPACE
