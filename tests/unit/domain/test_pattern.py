"""Engage patterns mean what they meant in JavaScript (`tests/data/javascript_patterns.json`), and errors say where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.pattern import PatternError, compile_pattern, units

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "javascript_patterns.json").read_text())


@pytest.mark.parametrize(("pattern", "found"), RECORDED["patterns"], ids=lambda value: ascii(value))
def test_a_pattern_finds_what_it_found_in_javascript(pattern: str, found: str | None) -> None:
    """The same texts match, and the same patterns are refused."""
    if found is None:
        with pytest.raises(PatternError):
            compile_pattern(pattern)
        return
    compiled = compile_pattern(pattern)
    assert "".join("01"[bool(compiled.search(units(text)))] for text in RECORDED["texts"]) == found


@pytest.mark.parametrize(
    ("pattern", "position", "hint"),
    [
        ("hey(", 3, "Add a `)`"),
        ("a)", 1, "Remove it"),
        ("[b-a]", 1, "smaller character first"),
        ("ab[", 2, "Add a `]`"),
        ("*a", 0, r"Write `\*`"),
        ("a**", 2, r"Write `\*`"),
        ("x{2,1}", 1, "smaller one first"),
        ("(?i)a", 0, "(?<name>"),
        ("abc\\", 3, "for a backslash"),
        (r"(?<a>x)\k<b>", 7, "(?<b>…)"),
        ("(?<1>x)", 2, "letters and digits"),
        ("(?<a>x)(?<a>y)", 7, "its own name"),
        ("a{1000000000}", 1, "smaller numbers"),
        ("(?:(?:a{1000}){1000}){1000}", 14, "smaller numbers"),
        ("x" * 4001, 4000, "at most 4000"),
    ],
)
def test_an_error_says_where_and_what_to_do(pattern: str, position: int, hint: str) -> None:
    """A refused pattern names the character and a way out."""
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert caught.value.position == position
    assert hint in caught.value.fix
    assert f"At character {position + 1}" in str(caught.value)


@given(st.text(alphabet="ab(){}[]?*+.|^$\\<>=!:-,0123k ", max_size=25))
def test_any_text_compiles_or_is_refused(pattern: str) -> None:
    """Whatever is typed, the answer is a pattern or a `PatternError`."""
    try:
        compile_pattern(pattern)
    except PatternError as error:
        assert 0 <= error.position <= len(pattern)


@given(st.text())
def test_a_quoted_text_finds_itself(text: str) -> None:
    """Every character can be written as its escape."""
    pattern = "".join(f"\\u{ord(unit):04x}" for unit in units(text))
    if len(pattern) <= 4000:
        assert compile_pattern(f"^{pattern}$").search(units(text))
