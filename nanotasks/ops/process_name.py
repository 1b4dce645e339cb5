"""The name of a process in `ps` and `top`: forked children have the command line of their parent."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_NAME = 15
_LENGTH = 15


def name_process(name: str) -> None:
    """Call this process `nano:<name>` (Linux shows the first 15 bytes; elsewhere nothing happens)."""
    if sys.platform == "linux":
        text = f"nano:{name}".encode()[:_LENGTH]
        ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(text), 0, 0, 0)
