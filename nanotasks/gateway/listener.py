"""The TCP socket of the gateway, and the questions whether it may be opened."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from nanotasks.errors import ConfigError, ConflictError
from nanotasks.settings import Settings

_BACKLOG = 512


def open_listener(settings: Settings) -> socket.socket:
    """A listening socket. Raises `ConflictError` for a port in use, `ConfigError` for what cannot or must not be."""
    host, port = settings.gateway_host, settings.gateway_port
    family, address = _resolve(host, port)
    if not ipaddress.ip_address(address[0].split("%")[0]).is_loopback and not settings.webhook_secret:
        raise ConfigError(
            f"The gateway will not listen on {host} without a webhook secret.",
            why="That address can be reached from other machines, and nobody would have to prove who they are.",
            fix="Set NANOTASKS_WEBHOOK_SECRET, or NANOTASKS_GATEWAY_HOST to 127.0.0.1.",
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """`http://127.0.0.1:8765`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        # The resolver would take a number that is no port modulo 65536.
        if not 0 <= port <= 65535:
            raise OverflowError(f"{port} is not a port")
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(
            f"The gateway cannot listen on {host}:{port}.",
            why=f"{error}.",
            fix="Set NANOTASKS_GATEWAY_HOST and NANOTASKS_GATEWAY_PORT to an address of this machine.",
        ) from error
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]


def _explained(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"Port {port} on {host} is in use.",
            why="Another gateway, or another program, listens there.",
            fix="Stop it, or set NANOTASKS_GATEWAY_PORT to another port (0 takes any free one).",
        )
    why = f"{os.strerror(error.errno or 0)}."
    return ConfigError(
        f"The gateway cannot listen on {host}:{port}.",
        why=why,
        fix="Set NANOTASKS_GATEWAY_HOST and NANOTASKS_GATEWAY_PORT to what this user may open.",
    )
