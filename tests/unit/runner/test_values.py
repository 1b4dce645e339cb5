"""Reading row content of any shape."""

from __future__ import annotations

import pytest

from agent_runner import values


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
