"""Holds one agent that runs as a child process: its lock, its limits, its log, its end.

Runs as a program of its own (`python -I -S`, imported as a top-level module so that its byte code is cached):
it must start in milliseconds and outlive the worker that started it. So it uses only modules that load in no
time; `signal` and `json` alone would double its start, hence `ctypes` for two calls and `marshal` for the order.

    worker ──order──▶ launcher ──fork──▶ (detached: own session)
                          │ flock(<session>.lock)     busy → report `busy`, end
                          │ write the record          who runs, for any later worker
                          │ fork ──▶ the agent: own process group, limits, inherits the lock
                          │ report `ok <pid> <start>`
                          │ pump its output into a log file that never exceeds its cap
                          ▼ the agent ends: kill what it left behind, record the exit, release the lock

The kernel's lock is the proof of life and of uniqueness (promise I5): launcher and agent share one open file
description, so the lock is free exactly when both are gone. What each death does:

- the worker: nothing. The order was read whole, or it is incomplete and nothing is started.
- the agent: its exit is appended to the record, then the lock is released.
- the launcher: the agent is killed with it (parent-death signal), the lock is released, and the record has no
  exit; whoever looks reports that.
- the machine: the locks are gone, the records stay and are found unlocked.

The order is a marshalled dict: `lock` (path), `record` (one JSON object, the first line of the lock file),
`log`, `log_bytes`, `argv`, `env`, `cwd`, `memory_bytes`, `nofile`, `processes`, `nice`. The report is one line
on standard output: `ok <pid> <start time>`, `busy`, or `failed <reason>`.
"""

# pathlib is one of the modules that take too long to load.
# ruff: noqa: PTH108, PTH116, PTH123, PTH208

from __future__ import annotations

import ctypes
import fcntl
import marshal
import os
import resource
import select
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGXFSZ = 1, 2, 9, 13, 15, 25
SIG_DFL, SIG_IGN = ctypes.c_void_p(0), ctypes.c_void_p(1)
CHUNK_BYTES = 65536
REAP_EVERY_MS = 30_000
LOCK_PATIENCE_S = 0.3
CLEANUP_S = 5.0
# The kernel takes an agent before it takes a worker when memory runs out.
OOM_SCORE = "300"

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    order = marshal.loads(sys.stdin.buffer.read())
    report = os.dup(1)
    devnull = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(devnull, fd)
    if os.fork():
        os._exit(0)
    try:
        launch(order, report)
    except OSError as error:
        tell(report, f"failed {error.strerror}: {error.filename or order['lock']}")


def launch(order: dict, report: int) -> None:  # type: ignore[type-arg]
    os.setsid()
    for number in (SIGHUP, SIGINT, SIGTERM):
        libc.signal(number, SIG_IGN)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lock = take_lock(order["lock"])
    if lock is None:
        tell(report, "busy")
        return
    os.ftruncate(lock, 0)
    append(lock, f"{order['record']}\n")
    append(lock, f'{{"launcher": {os.getpid()}, "launcher_start": {start_time(os.getpid())}}}\n')
    try:
        log = Log(order["log"], order["log_bytes"])
        output, agent = spawn(order, lock)
    except OSError:
        os.unlink(order["lock"])
        raise
    started = start_time(agent)
    append(lock, f'{{"pid": {agent}, "pid_start": {started}}}\n')
    tell(report, f"ok {agent} {started}")

    code = os.waitstatus_to_exitcode(watch_over(agent, output, log))
    drain(output, log)
    kill_what_is_left()
    append(lock, f'{{"exit": {code}}}\n')


def tell(report: int, line: str) -> None:
    """Report to the worker, which may be gone."""
    try:
        os.write(report, line.encode())
    except OSError:
        pass
    os.close(report)


def append(lock: int, line: str) -> None:
    """Add a line to the record; a full disk must not end the agent, nor hide its end."""
    try:
        os.write(lock, line.encode())
    except OSError:
        pass


def take_lock(path: str) -> int | None:
    """The locked descriptor, or None while the session's agent lives.

    Others hold the lock for microseconds when they probe or remove a file, so only a refusal that lasts counts.
    """
    give_up = time.monotonic() + LOCK_PATIENCE_S
    while time.monotonic() < give_up:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == os.stat(path).st_ino:
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(lock)
        time.sleep(0.01)
    return None


def start_time(pid: int) -> int:
    """Clock ticks since boot; together with the pid it names one process for ever."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def spawn(order: dict, lock: int) -> tuple[int, int]:  # type: ignore[type-arg]
    """Fork and exec the agent: the end of its output, and its pid. Raises the `OSError` that kept it from starting."""
    output, output_end = os.pipe()
    problem, problem_end = os.pipe()
    launcher = os.getpid()
    agent = os.fork()
    if agent == 0:
        try:
            become_agent(order, lock, output_end, launcher)
        except OSError as error:
            os.write(problem_end, f"{error.errno}:{error.filename or order['argv'][0]}".encode())
        except BaseException as error:
            os.write(problem_end, f"0:{error}".encode())
        os._exit(127)
    os.close(problem_end)
    os.close(output_end)
    with open(problem, "rb") as pipe:
        text = pipe.read().decode()
    if text:
        os.waitpid(agent, 0)
        number, _, name = text.partition(":")
        raise OSError(int(number), os.strerror(int(number)), name)
    os.set_blocking(output, False)
    return output, agent


def become_agent(order: dict, lock: int, output: int, launcher: int) -> None:  # type: ignore[type-arg]
    """In the fork: take leave of the launcher and turn into the agent. Every other descriptor closes at exec."""
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != launcher:
        os._exit(127)
    os.setpgid(0, 0)
    for number in (SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ):
        libc.signal(number, SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.set_inheritable(lock, True)
    os.umask(0o022)
    os.chdir(order["cwd"])
    set_limits(order)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs", "prctl")
    os.execve(order["argv"][0], order["argv"], order["env"])


def set_limits(order: dict) -> None:  # type: ignore[type-arg]
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, order["nofile"])
    # RLIMIT_DATA counts private writable memory. RLIMIT_AS would also count reservations, and several
    # interpreters reserve gigabytes that they never touch.
    limit(resource.RLIMIT_DATA, order["memory_bytes"])
    # The kernel counts this one over all processes of the user, so it starts from what runs already.
    limit(resource.RLIMIT_NPROC, tasks_of_this_user() + order["processes"])
    os.nice(order["nice"])
    write_quietly("/proc/self/autogroup", str(order["nice"]))
    write_quietly("/proc/self/oom_score_adj", OOM_SCORE)


def limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def write_quietly(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass


def tasks_of_this_user() -> int:
    """How many processes and threads the user runs now, as the kernel counts them."""
    user, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    count += os.stat(f"/proc/{name}/task").st_nlink - 2
            except OSError:
                pass
    return count


class Log:
    """A file that keeps the newest output: when it would exceed its cap, its older half goes."""

    def __init__(self, path: str, cap_bytes: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fd = os.open(path, flags, 0o600)
        self.cap = cap_bytes
        self.size = os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        data = data[-(self.cap // 2) :]
        try:
            if self.size + len(data) > self.cap:
                self.cut()
            self.size += os.write(self.fd, data)
        except OSError:
            pass

    def cut(self) -> None:
        kept = os.pread(self.fd, self.cap // 2, max(0, self.size - self.cap // 2))
        os.ftruncate(self.fd, 0)
        self.size = os.write(self.fd, kept[kept.find(b"\n") + 1 :][: self.cap // 2])


def watch_over(agent: int, output: int, log: Log) -> int:
    """Pump and reap until the agent ends; its wait status."""
    poll = select.poll()
    poll.register(os.pidfd_open(agent), select.POLLIN)
    poll.register(output, select.POLLIN)
    while True:
        for fd, _event in poll.poll(REAP_EVERY_MS):
            if fd == output and not drain(output, log):
                poll.unregister(output)
        status = reap(agent)
        if status is not None:
            return status


def drain(output: int, log: Log) -> bool:
    """Move what the pipe holds into the log; False at its end."""
    while True:
        try:
            data = os.read(output, CHUNK_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        log.write(data)


def reap(agent: int) -> int | None:
    """Collect orphans of the agent's children; the agent's status once it has ended.

    The group is killed while the dead agent still reserves its number.
    """
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        if ended.si_pid == agent:
            kill_group(agent)
        status = os.waitpid(ended.si_pid, 0)[1]
        if ended.si_pid == agent:
            return status


def kill_what_is_left() -> None:
    """Kill the agent's descendants, which became this process's children whatever group they moved to."""
    give_up = time.monotonic() + CLEANUP_S
    while time.monotonic() < give_up:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in children():
                os.kill(child, SIGKILL)
            time.sleep(0.005)


def kill_group(agent: int) -> None:
    try:
        os.killpg(agent, SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
            except OSError:
                pass
    return found
