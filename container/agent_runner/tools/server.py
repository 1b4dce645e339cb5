"""The tools over the Model Context Protocol: JSON-RPC 2.0 on stdin and stdout, one message per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from agent_runner.paths import Workspace
from agent_runner.tools import TOOLS, call

NAME, VERSION = "nanoclaw", "2.0.0"
PROTOCOLS = ("2025-06-18", "2025-03-26", "2024-11-05")
_PARSE_ERROR, _INVALID_REQUEST, _UNKNOWN_METHOD, _INVALID_PARAMS = -32700, -32600, -32601, -32602


class RpcError(Exception):
    """A request that gets an error instead of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def serve(workspace: Workspace, requests: Iterable[str], answers: IO[str]) -> None:
    """Answer until the requests end."""
    for line in requests:
        answer = handle(workspace, line) if line.strip() else None
        if answer is not None:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def handle(workspace: Workspace, line: str) -> dict[str, Any] | None:
    """The answer to one message; None for a notification."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return _failure(None, RpcError(_PARSE_ERROR, "Parse error"))
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        return _failure(None, RpcError(_INVALID_REQUEST, "Invalid request"))
    if "id" not in message:
        return None
    try:
        result = _result(workspace, message["method"], message.get("params") or {})
    except RpcError as error:
        return _failure(message["id"], error)
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def _result(workspace: Workspace, method: str, params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise RpcError(_INVALID_PARAMS, "params must be an object")
    if method == "initialize":
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in PROTOCOLS else PROTOCOLS[0],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": NAME, "version": VERSION},
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        tools = [{"name": t.name, "description": t.description, "inputSchema": t.schema} for t in TOOLS]
        return {"tools": tools}
    if method == "tools/call":
        name = params.get("name")
        if not isinstance(name, str):
            raise RpcError(_INVALID_PARAMS, "name must be a string")
        outcome = call(workspace, name, params.get("arguments"))
        content = {"content": [{"type": "text", "text": outcome.text}]}
        return {**content, "isError": True} if outcome.is_error else content
    raise RpcError(_UNKNOWN_METHOD, f"Method not found: {method}")


def _failure(request_id: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": error.code, "message": str(error)}}
