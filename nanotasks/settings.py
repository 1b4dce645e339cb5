"""Every setting: environment name, default, unit, meaning. Nothing else in the package reads the environment.

A field `foo_bar` is set by `NANOTASKS_FOO_BAR`. `docs/configuration.md` is generated from this file, and a
test keeps the two equal. Values are checked when they are loaded: an unreadable one is a `ConfigError` that
names the variable, and an unknown `NANOTASKS_…` variable is reported with the nearest known name.
"""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from nanotasks import faults
from nanotasks.assets import checkout_root
from nanotasks.domain.vocabulary import PROVIDERS
from nanotasks.errors import ConfigError

PREFIX = "NANOTASKS_"
# SQLite opens paths of 512 bytes at most, and a session's files lie some 90 below the data directory.
DATA_DIR_BYTES = 400
REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix", "valkey", "valkeys")
_LAST_PORT = 65535
# What is done more often than this keeps a core busy.
_BUSY_S = 0.01
_HOST_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")
# Read by other parts of the system, by design not settings of the host.
_RESERVED = ("NANOTASKS_FAULT", "NANOTASKS_TEST_")


def _setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    secret: bool = False,
    choices: tuple[str, ...] = (),
    least: float = 0,
    most: float = math.inf,
) -> Any:
    metadata = {"meaning": meaning, "unit": unit, "secret": secret, "choices": choices, "least": least, "most": most}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _default_data_dir() -> Path:
    root = checkout_root()
    if root is not None:
        return root / "data"
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "nanotasks"


def machine_name() -> str:
    """What this machine is called: the host id where none is set."""
    return socket.gethostname().split(".")[0].lower() or "local"


def _default_timezone() -> str:
    for candidate in (os.environ.get("TZ", ""), _system_timezone()):
        if candidate and _is_zone(candidate):
            return candidate
    return "UTC"


def _system_timezone() -> str:
    try:
        return str(Path("/etc/localtime").resolve()).split("/zoneinfo/", 1)[1]
    except (OSError, IndexError):
        return ""


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Settings:
    """The configuration of one process. Immutable; build variants with `dataclasses.replace`."""

    # Where things are
    data_dir: Path = _setting(_default_data_dir, "Databases, session folders, workspaces and logs of this host")
    database_url: str = _setting(
        "", "SQLAlchemy URL of the central database; empty means SQLite in the data directory", secret=True
    )
    shared_dir: str = _setting(
        "",
        "Directory on storage that several hosts share, for session folders and workspaces; empty: the data directory",
    )
    redis_url: str = _setting("", "Broker and bells; empty means the private Redis of `nanotasks up`", secret=True)
    host_id: str = _setting(machine_name, "This host's id; its queue is `host.<id>`")
    runtime_dir: str = _setting("", "Short directory for sockets; empty means one under /run/user or /tmp")
    timezone: str = _setting(_default_timezone, "IANA zone of prompts and schedules that name none")
    log_level: str = _setting("info", "Least severe line that is logged", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting(
        "auto", "`json` lines, `text`, or text only on a terminal", choices=("auto", "json", "text")
    )

    # Agents
    runtime: str = _setting(
        "auto",
        "How agents run: `docker`, `process`, or Docker when its daemon answers",
        choices=("auto", "docker", "process"),
    )
    provider: str = _setting(
        "auto", "Default provider of agent groups that name none; `auto` is `demo`", choices=PROVIDERS
    )
    assistant_name: str = _setting("Andy", "Name of the agent that the first start creates")
    image: str = _setting("", "Agent image; empty means the one built for this installation")
    image_base: str = _setting("python:3.11-slim", "Base image that `nanotasks image build` starts from")
    container_network: str = _setting("bridge", "Docker network of agents; `none` cuts them off")
    container_memory_mb: int = _setting(1024, "Memory limit of one agent", unit="MiB")
    container_cpus: float = _setting(2.0, "CPU limit of one agent", unit="cores")
    container_pids: int = _setting(256, "Process limit of one agent")
    container_nofile: int = _setting(1024, "Open-file limit of one agent")
    container_stop_grace_s: float = _setting(5.0, "Time between asking an agent to stop and killing it", unit="s")
    container_start_timeout_s: float = _setting(30.0, "Time the runtime may take to start an agent", unit="s")
    agent_log_max_kb: int = _setting(512, "Size at which an agent's log file is cut", unit="KiB")
    max_containers: int = _setting(50, "Agents that run at the same time on one host", least=1)
    mount_allowlist: str = _setting(
        "", "File of folders that agents may mount; empty means ~/.config/nanotasks/mount-allowlist.json"
    )
    max_messages_per_prompt: int = _setting(10, "Messages of one prompt for groups that set no number", least=1)

    # Gateway and channels
    gateway_host: str = _setting("127.0.0.1", "Address the gateway listens on")
    gateway_port: int = _setting(8765, "Port the gateway listens on; 0 means any free one", most=_LAST_PORT)
    max_body_kb: int = _setting(10240, "Largest accepted request body", unit="KiB")
    max_pending_per_chat: int = _setting(1000, "Unrouted messages of one chat before the gateway answers 429")
    webhook_secret: str = _setting("", "HMAC key of inbound webhooks; empty turns the webhook channel off", secret=True)
    webhook_outbound_url: str = _setting("", "Where the webhook channel posts answers")
    webhook_tolerance_s: int = _setting(300, "Largest age of a webhook's timestamp", unit="s")
    webhook_threads: bool = _setting(True, "Whether the webhook channel has threads")
    webhook_timeout_s: float = _setting(10.0, "Deadline of one outbound webhook call", unit="s")
    webhook_uncertain: str = _setting(
        "resend", "What becomes of a send that ended without an answer", choices=("resend", "hold")
    )
    metrics_token: str = _setting(
        "", "What a reader of `/metrics` has to show; empty means that only this machine may read them", secret=True
    )
    file_dir: str = _setting(
        "", "Folder of the file channel's JSONL files; empty means `channels/file` in the data directory"
    )
    file_threads: bool = _setting(False, "Whether the file channel has threads")
    chat_patience_s: float = _setting(
        300.0, "Silence after which `nanotasks chat` stops waiting for a reply to a piped line", unit="s"
    )

    # Processes
    worker_concurrency: int = _setting(2, "Children of one worker", least=1)
    canary_period_s: float = _setting(10.0, "Period of the task that a worker sends itself", unit="s", least=_BUSY_S)
    canary_silence_s: float = _setting(45.0, "Silence after which a worker counts as deaf and is restarted", unit="s")
    supervise_restart_s: float = _setting(
        1.0, "Pause before a process that ended is restarted; doubles up to 4 s while it ends within 5 s", unit="s"
    )
    flower_host: str = _setting("127.0.0.1", "Address Flower listens on")
    flower_port: int = _setting(5555, "Port Flower listens on", least=1, most=_LAST_PORT)
    flower_user: str = _setting("", "User name for Flower; needed unless it listens on loopback")
    flower_password: str = _setting("", "Password for Flower; needed unless it listens on loopback", secret=True)

    # The pattern: periods, limits, patience
    signal_expires_s: int = _setting(300, "Age at which an unread signal is worthless", unit="s")
    bell_s: int = _setting(5, "Time a bell stays rung before another signal is sent", unit="s")
    sweep_signals_period_s: float = _setting(
        5.0, "Period of the sweep for unrouted and unappended rows", unit="s", least=_BUSY_S
    )
    sweep_due_period_s: float = _setting(
        10.0, "Period of the sweep for sessions with due rows", unit="s", least=_BUSY_S
    )
    sweep_containers_period_s: float = _setting(
        10.0, "Period of the sweep over running agents", unit="s", least=_BUSY_S
    )
    sweep_hosts_period_s: float = _setting(5.0, "Period of the sweep over the hosts", unit="s", least=_BUSY_S)
    sweep_figures_period_s: float = _setting(
        30.0, "Period of counting spans and ends for the metrics", unit="s", least=_BUSY_S
    )
    sweep_batch: int = _setting(100, "Rows one sweep signals, oldest first", least=1)
    resignal_after_s: float = _setting(5.0, "Age of a row before a sweep signals it again", unit="s")
    host_heartbeat_s: float = _setting(5.0, "Period of a host's sign of life", unit="s", least=_BUSY_S)
    host_timeout_s: float = _setting(28.0, "Silence after which a host counts as down", unit="s")
    agent_lease_margin_s: float = _setting(
        8.0, "How long before its host counts as down an agent on shared storage stops itself", unit="s", least=1.0
    )
    lease_s: float = _setting(30.0, "Life of a lease that is not renewed", unit="s")
    event_max_tries: int = _setting(3, "Failed routings after which an event is dead")
    engage_pattern_timeout_ms: int = _setting(100, "Time one engage pattern may take on one message", unit="ms")
    heartbeat_ceiling_s: int = _setting(1800, "Silence after which a running agent is stopped", unit="s")
    claim_tolerance_s: int = _setting(60, "Age of a claim without a heartbeat after which an agent is stuck", unit="s")
    first_heartbeat_s: int = _setting(120, "Time a new agent with claims may stay without any heartbeat", unit="s")
    inbound_max_tries: int = _setting(5, "Crashes after which an inbound row has failed")
    inbound_backoff_s: float = _setting(5.0, "First pause after a crash; doubles each time", unit="s")
    wake_backoff_s: float = _setting(5.0, "First pause after a failed start; doubles each time", unit="s")
    wake_backoff_max_s: float = _setting(300.0, "Longest pause after a failed start", unit="s")
    append_failing_told_s: float = _setting(
        120.0, "Age of a message that cannot be passed to its agent at which its chat is told that it is kept", unit="s"
    )
    wake_failures_told: int = _setting(
        5, "Failed starts in a row after which the chat is told that its message is kept"
    )
    delivery_backoff_s: float = _setting(
        2.0, "First pause after a failed send; doubles each time, with jitter", unit="s"
    )
    delivery_backoff_max_s: float = _setting(900.0, "Longest pause between two sends", unit="s")
    delivery_horizon_s: float = _setting(21600.0, "Time after which a delivery is given up", unit="s")
    lane_hold_s: float = _setting(900.0, "Time a failing row may hold back its lane", unit="s")
    delivery_timeout_s: float = _setting(30.0, "Deadline of one send", unit="s")
    delivery_wait_s: float = _setting(
        0.25, "Time a task waits for its sends before they go on in the background", unit="s"
    )
    adapter_calls_max: int = _setting(8, "Lanes that one child of a worker sends on at one time")
    agent_messages_per_min: int = _setting(60, "Messages one agent may send to another per minute; 0 means any number")
    outbound_read_timeout_s: float = _setting(2.0, "Deadline of reading one outbound.db", unit="s")
    outbound_max_row_kb: int = _setting(1024, "Largest value read from outbound.db", unit="KiB")
    outbox_max_file_mb: int = _setting(50, "Largest file taken from an outbox", unit="MiB")
    media_keep_h: float = _setting(
        168.0, "Time for which attachments of messages that no agent got are kept, for `intake retry`", unit="h"
    )
    task_misfire_grace_s: float = _setting(60.0, "Lateness up to which a scheduled run counts as on time", unit="s")
    task_guard_lead_s: float = _setting(
        1.0,
        "Time before an occurrence at which it is withdrawn, when the one before still runs",
        unit="s",
        least=_BUSY_S,
    )
    task_attempts_max: int = _setting(3, "Attempts of a scheduled run, where its series names no other number", least=1)
    task_backoff_s: float = _setting(
        60.0, "First pause before a failed run is tried again; doubles each time", unit="s"
    )
    task_backoff_max_s: float = _setting(3600.0, "Longest pause before a failed run is tried again", unit="s")
    task_failures_max: int = _setting(
        5, "Failed runs in a row after which a series pauses itself; 0 means never", least=0
    )
    typing_refresh_s: float = _setting(4.0, "Period of the typing indicator", unit="s", least=_BUSY_S)
    typing_grace_s: float = _setting(15.0, "Typing shown after a message without any heartbeat", unit="s")
    typing_fresh_s: float = _setting(6.0, "Age of a heartbeat that still counts as typing", unit="s")
    typing_pause_s: float = _setting(10.0, "Pause of the typing indicator after a delivery", unit="s")

    @property
    def central_url(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database_url or f"sqlite:///{self.data_dir / 'central.db'}"

    @property
    def files_dir(self) -> Path:
        """Where `sessions/` and `groups/` are: the shared directory, or the data directory of this host."""
        return Path(self.shared_dir).expanduser().absolute() if self.shared_dir else self.data_dir

    @property
    def storage(self) -> str:
        """`shared` when agent groups of this host can move to others that have the same directory, else `local`."""
        return "shared" if self.shared_dir else "local"

    @property
    def agent_lease_s(self) -> float:
        """The silence of its host after which an agent on shared storage stops itself, in seconds."""
        return self.host_timeout_s - self.agent_lease_margin_s

    @property
    def queue(self) -> str:
        """This host's Celery queue."""
        return f"host.{self.host_id}"

    @property
    def install_id(self) -> str:
        """Eight hex digits that tell this installation's containers and images from another's."""
        import hashlib

        return hashlib.sha1(str(self.data_dir.resolve()).encode(), usedforsecurity=False).hexdigest()[:8]

    def environment(self) -> dict[str, str]:
        """The variables that make a child process load these same settings."""
        return {env_name(f.name): _to_text(getattr(self, f.name)) for f in fields(self)}


def env_name(field_name: str) -> str:
    """`data_dir` → `NANOTASKS_DATA_DIR`."""
    return PREFIX + field_name.upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Raises `ConfigError` for a value that cannot be read or is unknown."""
    source = os.environ if environ is None else environ
    faults.check(source)
    known = {env_name(f.name): f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in source.items():
        if not name.startswith(PREFIX) or name.startswith(_RESERVED):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"Did you mean {near[0]}?" if near else "See docs/configuration.md for the list."
            raise ConfigError(f"Unknown setting {name}.", fix=fix)
        spec = known[name]
        means_default = str(spec.type) != "str" or spec.metadata["choices"] or callable(spec.default_factory)
        if text == "" and means_default:
            continue
        values[spec.name] = _parse(name, text, str(spec.type), spec.metadata["choices"])
    settings = Settings(**values)
    _check_path(settings.data_dir, "data_dir")
    _check_path(settings.files_dir, "shared_dir")
    _check(settings)
    if not _is_zone(settings.timezone):
        raise ConfigError(
            f"NANOTASKS_TIMEZONE is not a zone: {settings.timezone}.", fix="Use an IANA name such as Europe/Berlin."
        )
    return settings


def _check_path(path: Path, field_name: str) -> None:
    length = len(os.fsencode(path))
    if length > DATA_DIR_BYTES:
        raise ConfigError(
            f"The path of the {field_name.removesuffix('_dir')} directory is too long: {path}.",
            why=f"It has {length} bytes, and databases below it can be opened up to {DATA_DIR_BYTES}.",
            fix=f"Set {env_name(field_name)} to a directory with a shorter path.",
        )


def _check(settings: Settings) -> None:
    """Refuse what could be read but means nothing. A URL is not repeated, since it may hold a password."""
    for spec in fields(Settings):
        value = getattr(settings, spec.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least, most = spec.metadata["least"], spec.metadata["most"]
        if value < least:
            raise ConfigError(f"{env_name(spec.name)}={value} is too small.", fix=f"Set it to {least:g} or more.")
        if value > most:
            raise ConfigError(f"{env_name(spec.name)}={value} is too large.", fix=f"Set it to {most} or less.")
    if not _HOST_ID.fullmatch(settings.host_id):
        raise ConfigError(
            f"NANOTASKS_HOST_ID={settings.host_id!r} is no host id.", fix="Use letters, digits, dots, - and _ only."
        )
    scheme, found, _rest = settings.redis_url.partition("://")
    if settings.redis_url and not (found and scheme in REDIS_SCHEMES):
        raise ConfigError(
            "NANOTASKS_REDIS_URL is not the URL of a Redis.",
            fix="Write it like redis://127.0.0.1:6379/0 or unix:///run/redis.sock, or unset it for the private one of"
            " `nanotasks up`.",
        )
    if settings.shared_dir and settings.agent_lease_s < 2 * settings.host_heartbeat_s:
        raise ConfigError(
            f"Agents on shared storage would stop themselves after {settings.agent_lease_s:g} s without a sign of life"
            f" of their host, which gives one every {settings.host_heartbeat_s:g} s.",
            fix="Let NANOTASKS_HOST_TIMEOUT_S minus NANOTASKS_AGENT_LEASE_MARGIN_S be at least twice"
            " NANOTASKS_HOST_HEARTBEAT_S.",
        )
    if settings.webhook_outbound_url and not settings.webhook_outbound_url.startswith(("http://", "https://")):
        raise ConfigError(
            "NANOTASKS_WEBHOOK_OUTBOUND_URL is no http or https URL.", fix="Write it like https://example.org/hook."
        )


def _parse(name: str, text: str, kind: str, choices: tuple[str, ...]) -> Any:
    try:
        value: Any
        if kind == "Path":
            value = Path(text).expanduser().absolute()
        elif kind == "bool":
            value = {
                "1": True,
                "true": True,
                "yes": True,
                "on": True,
                "0": False,
                "false": False,
                "no": False,
                "off": False,
            }[text.lower()]
        elif kind == "int":
            value = int(text)
        elif kind == "float":
            value = float(text)
            if not math.isfinite(value):
                raise ValueError(text)
        else:
            value = text
    except (KeyError, ValueError):
        raise ConfigError(
            f"{name}={text!r} is not a valid {kind}.", fix=f"Set {name} to a {kind}, or unset it."
        ) from None
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name}={text!r} is not one of {', '.join(choices)}.", fix=hint.strip())
    return value


def _to_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


@functools.cache
def settings() -> Settings:
    """The settings of this process, loaded once."""
    return load()


def describe() -> list[dict[str, str]]:
    """One row per setting: `env`, `default`, `unit`, `meaning`, for the documentation and `nanotasks status`."""
    rows = []
    for spec in fields(Settings):
        default = "" if callable(spec.default_factory) else _to_text(spec.default)
        meaning = cast(str, spec.metadata["meaning"])
        rows.append({"env": env_name(spec.name), "default": default, "unit": spec.metadata["unit"], "meaning": meaning})
    return rows
