"""Base64 texts of other programs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.base64_text import decode_base64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eA==", b"x"),
        ("eA", b"x"),
        ("!!notbase64!!", b"\x9e\x8b[j\xc7\xba"),
        ("a-_b", b"k\xef\xdb"),
        ("eA==eA==", b"x"),
        ("e", b""),
        ("", b""),
        ("====eA", b""),
        ("ZD\nA=", b"d0"),
    ],
)
def test_it_is_read_as_node_reads_it(text: str, expected: bytes) -> None:
    """Either alphabet, without padding, up to the first `=`."""
    assert decode_base64(text) == expected


@given(st.text())
def test_any_text_has_bytes(text: str) -> None:
    """What is no base64 never raises."""
    decode_base64(text)
