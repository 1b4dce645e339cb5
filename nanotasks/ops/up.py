"""`nanotasks up`: everything on this machine from one command, and a chat with an agent in front of it.

What it does, in order: take the lock of the data directory, fork the process tree (`tree`), bring the database up to
date, make the first agent where there is none, choose how agents run, let the tree start, chat. Whatever ends it
(end of input, a signal, an error), the tree is stopped first. Words go to stderr: stdout has the replies only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from nanotasks import logs
from nanotasks.errors import ConfigError, ConflictError, NanotasksError
from nanotasks.ops.in_child import in_child
from nanotasks.ops.tree import Tree
from nanotasks.settings import Settings, settings

LAST_RUN_ENDS_S = 20.0
GATEWAY_OPENS_S = 20.0
_LOOK_S = 60.0


class StoppedError(NanotasksError):
    """The processes of `nanotasks up` ended by themselves."""

    code = "stopped"


def run_up(*, chat: bool = True) -> int:
    """Run everything until the chat, or a signal, ends it; returns the exit code.

    Raises `ConflictError` when another `up` has this data directory, `ConfigError` when the database or the
    settings cannot be used, `DependencyDownError` when a runtime that was asked for is not there.
    """
    config = settings()
    # The terminal belongs to the chat: this process logs only what went wrong.
    logs.configure("error", config.log_format)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with only_one(config.data_dir):
        tree = Tree.fork(config)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: _require_running(tree))
        try:
            chosen = in_child(lambda: prepare(config))
            tree.go(chosen.environment())
            return _chat(chosen) if chat else _wait(chosen, tree)
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            tree.stop()


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock; the children share it, so it is free once all of them are gone."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    try:
        _lock(handle, data_dir)
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise _unusable(data_dir, error) from error
        yield
    finally:
        os.close(handle)


def _unusable(data_dir: Path, error: OSError) -> ConfigError:
    why, fix = f"{error.strerror}.", "Set NANOTASKS_DATA_DIR to a directory that this user may write."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "Free some space there, or set NANOTASKS_DATA_DIR to a directory on another disk."
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        why = "There is a file in its place."
        fix = "Set NANOTASKS_DATA_DIR to a directory, or move that file away."
    return ConfigError(f"The data directory {data_dir} cannot be used.", why=why, fix=fix)


def _lock(handle: int, data_dir: Path) -> None:
    deadline = time.monotonic() + LAST_RUN_ENDS_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            pid = os.pread(handle, 20, 0).decode() or "unknown"
            # A run that was killed leaves its children a moment to end.
            if _alive(pid) or time.monotonic() > deadline:
                raise ConflictError(
                    f"`nanotasks up` runs already on {data_dir} (pid {pid}).",
                    fix="Talk to it with `nanotasks chat`, stop it, or set NANOTASKS_DATA_DIR to another directory.",
                ) from None
            time.sleep(0.05)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def prepare(config: Settings) -> Settings:
    """Make the database and the first agent, choose the runtime and a free port; the settings to run with."""
    from nanotasks.central import Database
    from nanotasks.central.migrate import upgrade
    from nanotasks.ops.host_identity import host_id_here, stranded
    from nanotasks.ops.redis_server import require_answer
    from nanotasks.ops.seed import seed
    from nanotasks.runtimes.select import decide
    from nanotasks.sweep.hosts import sign_of_life

    if config.redis_url:
        require_answer(config)
    db = Database(config.central_url)
    try:
        upgrade(db)
        config = dataclasses.replace(config, host_id=host_id_here(db, config))
        sign_of_life(db, config)
        seed(db, config)
        if notice := stranded(db, config):
            say(notice)
    finally:
        db.close()
    decision = decide(config, say)
    if decision.notice:
        say(decision.notice)
    return dataclasses.replace(config, runtime=decision.name, gateway_port=_free_port(config))


def say(line: str) -> None:
    """One line for the person at the terminal, on stderr."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _free_port(config: Settings) -> int:
    from nanotasks.gateway.listener import open_listener

    try:
        with open_listener(config) as listener:
            return int(listener.getsockname()[1])
    except ConflictError:
        with open_listener(dataclasses.replace(config, gateway_port=0)) as listener:
            port = int(listener.getsockname()[1])
    say(f"Port {config.gateway_port} is in use; the gateway listens on {config.gateway_host}:{port}.")
    return port


def _chat(config: Settings) -> int:
    from nanotasks.ops.chat import run_chat

    return run_chat(config, connect_s=GATEWAY_OPENS_S)


def _wait(config: Settings, tree: Tree) -> int:
    opens = time.monotonic() + GATEWAY_OPENS_S
    while not _gateway_answers(config):
        if time.monotonic() > opens:
            say(f"The gateway does not answer yet; see {tree.log_dir}.")
            break
        time.sleep(0.05)
    else:
        say(f"nanotasks is up. Gateway: http://{config.gateway_host}:{config.gateway_port}. Logs: {tree.log_dir}.")
    while True:
        time.sleep(_LOOK_S)


def _gateway_answers(config: Settings) -> bool:
    try:
        with socket.create_connection((config.gateway_host, config.gateway_port), timeout=1):
            return True
    except OSError:
        return False


def _require_running(tree: Tree) -> None:
    if tree.ended() is not None:
        raise StoppedError(why=tree.complaint(), fix=f"See the logs in {tree.log_dir}.")


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
