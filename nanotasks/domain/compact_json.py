"""JSON as session files and the central database hold it."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: Any) -> str:
    """Compact JSON, the form that session files and readers by substring expect."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # JavaScript cuts an emoji in two, and JSON can spell the halves, which no database holds.
        return json.dumps(value, separators=(",", ":"))
    return text
