"""`send_file`: deliver a copy of a file. The bytes go to `outbox/<row id>/`, the row names them."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from agent_runner.ids import new_id
from agent_runner.outbound import REPLYING_TO
from agent_runner.paths import Workspace
from agent_runner.rows import OutboundRow
from agent_runner.tools.addressing import resolve, session_files
from agent_runner.tools.contract import Tool, ToolError
from agent_runner.values import storable, to_json

_MAX_NAME_BYTES = 200


def run(workspace: Workspace, arguments: dict[str, Any]) -> str:
    path = arguments.get("path")
    if not path:
        raise ToolError("path is required")
    with session_files(workspace) as (inbound, outbound):
        with inbound.open() as reader:
            address = resolve(reader, arguments.get("to"))
        source = _regular_file(os.path.join(workspace.agent_dir, path), path)
        name = safe_name(arguments.get("filename") or "") or safe_name(path) or "attachment"
        row_id = new_id("msg")
        folder = os.path.join(workspace.outbox, row_id)
        content = to_json({"text": storable(arguments.get("text") or ""), "files": [name]})
        try:
            _copy(source, folder, name)
            with outbound.transaction():
                reply_to = outbound.state(REPLYING_TO)
                outbound.insert([OutboundRow(row_id, "chat", address.route, content, reply_to)])
        except BaseException:
            _remove(folder, name)
            raise
    return f"File sent to {address.label} (id: {row_id}, filename: {name})"


def safe_name(wanted: str) -> str:
    """The last part of `wanted` as a plain file name, or an empty text when nothing is left.

    A name is written below `outbox/` and read by the host, so it must not lead anywhere else.
    """
    name = storable(re.split(r"[/\\]", wanted.rstrip("/\\"))[-1])
    name = "".join(c for c in name if c.isprintable()).strip()
    if name in ("", ".", ".."):
        return ""
    stem, dot, suffix = name.rpartition(".")
    suffix = dot + suffix if stem and len(suffix) <= 16 else ""
    stem = name[: len(name) - len(suffix)]
    room = _MAX_NAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + suffix


def _regular_file(path: str, shown: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        raise ToolError(f"File not found: {shown}") from None
    if not stat.S_ISREG(mode):
        raise ToolError(f"Not a file: {shown}")
    return path


def _copy(source: str, folder: str, name: str) -> None:
    """The bytes are on disk before the row that names them is committed."""
    os.makedirs(folder)
    with open(source, "rb") as bytes_in, open(os.path.join(folder, name), "xb") as bytes_out:
        while piece := bytes_in.read(1 << 20):
            bytes_out.write(piece)
        bytes_out.flush()
        os.fsync(bytes_out.fileno())


def _remove(folder: str, name: str) -> None:
    for remove, path in ((os.unlink, os.path.join(folder, name)), (os.rmdir, folder)):
        try:
            remove(path)
        except OSError:
            pass  # it was never made, or the disk is what failed


TOOL = Tool(
    "send_file",
    "Send a file to a destination, with an optional text.",
    {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file; relative paths start in your working folder"},
            "to": {
                "type": "string",
                "description": "Name of a destination. May be left out in a conversation (it goes there) "
                "and with a single destination.",
            },
            "text": {"type": "string", "description": "Text that goes with the file"},
            "filename": {"type": "string", "description": "Name the receiver sees; the file's own name by default"},
        },
        "required": ["path"],
    },
    run,
)
