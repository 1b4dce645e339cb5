"""The conformance suite of the runtimes: what the host relies on, asked of child processes and of containers.

The agent is a tiny script that runs the Python statements it finds in its environment; facts it wants to tell
are files in its workspace.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from nanotasks.errors import InvalidError
from nanotasks.owners import process_start_time
from nanotasks.runtimes import docker, docker_watch, process
from nanotasks.runtimes.contract import (
    AlreadyRunningError,
    Exit,
    Limits,
    Mount,
    Running,
    Runtime,
    RuntimeDownError,
    StartFailedError,
    StartSpec,
)
from nanotasks.runtimes.docker import DockerRuntime
from nanotasks.runtimes.docker_client import LABEL, new_client, remove
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.testing import wait_for

AGENT = """
import os, pathlib, signal, sys, time

def tell(name, text=""):
    work = pathlib.Path(os.environ["WORK"])
    (work / (name + ".new")).write_text(str(text))
    os.rename(work / (name + ".new"), work / name)

exec(os.environ["SCRIPT"])
"""
WAIT = "signal.signal(signal.SIGTERM, lambda *_: (tell('bye'), sys.exit(0))); tell('ready'); signal.pause()"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell('ready'); time.sleep(600)"
LIMITS = Limits(memory_mb=200, cpus=1.0, pids=64, nofile=256, log_kb=64)


@dataclass
class World:
    """One runtime, with the folders of its sessions."""

    open: Callable[[], Runtime]
    folder: Path
    image: str = ""
    client: Any = None
    opened: list[Runtime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = self.make()
        package = self.folder / "code" / "agent_runner"
        package.mkdir(parents=True)
        (self.folder / "code" / "Dockerfile").write_text("")
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(AGENT)

    def make(self) -> Runtime:
        """The runtime as another process of the host sees it: nothing in memory yet."""
        self.opened.append(self.open())
        return self.opened[-1]

    @property
    def in_docker(self) -> bool:
        return self.runtime.name == "docker"

    def work(self, session_id: str = "s1") -> Path:
        work = self.folder / "sessions" / session_id
        work.mkdir(parents=True, exist_ok=True)
        return work

    def spec(self, script: str = WAIT, session_id: str = "s1", instance_id: str = "", **changes: Any) -> StartSpec:
        work = self.work(session_id)
        inside = "/workspace" if self.in_docker else str(work)
        code = "/app/src" if self.in_docker else str(self.folder / "code")
        return replace(
            StartSpec(
                session_id=session_id,
                agent_group_id="ag-1",
                instance_id=instance_id or f"inst-{uuid.uuid4().hex[:6]}",
                epoch=3,
                image=self.image,
                limits=LIMITS,
                working_dir=inside,
                network="none",
                mounts=(Mount(work, "/workspace", False, True), Mount(self.folder / "code", "/app/src")),
                environment={"WORK": inside, "PYTHONPATH": code, "SCRIPT": script},
            ),
            **changes,
        )

    def start(self, script: str = WAIT, session_id: str = "s1", **changes: Any) -> Running:
        for old in self.work(session_id).iterdir():
            old.unlink()
        return self.runtime.start(self.spec(script, session_id, **changes))

    def told(self, name: str, session_id: str = "s1") -> str:
        """Wait for a fact the agent tells."""
        path = self.work(session_id) / name
        wait_for(path.exists, what=f"{name}; log: {self.runtime.last_log(session_id)}")
        return path.read_text()

    def started(self, script: str = WAIT, session_id: str = "s1", **changes: Any) -> Running:
        running = self.start(script, session_id, **changes)
        self.told("ready", session_id)
        return running

    @contextmanager
    def watching(self, on_exit: Callable[[Exit], None] | None = None) -> Iterator[list[Exit]]:
        """Collect exits while the block runs."""
        seen: list[Exit] = []
        stop = threading.Event()
        watcher = threading.Thread(target=self.make().watch, args=(on_exit or seen.append, stop))
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join(timeout=10)
            assert not watcher.is_alive()


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A runtime of its own installation; nothing of it is left when the test ends."""
    yield from _world(request, tmp_path, request.param)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker)])
def docker_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The Docker runtime."""
    yield from _world(request, tmp_path, "docker")


@pytest.fixture
def process_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The process runtime."""
    yield from _world(request, tmp_path, "process")


def _world(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[World]:
    install = f"t{uuid.uuid4().hex[:7]}"
    if name == "process":
        world = World(lambda: ProcessRuntime(folder), folder)
    else:
        image, client = request.getfixturevalue("agent_image"), request.getfixturevalue("docker_client")
        world = World(lambda: DockerRuntime(install, "host-1"), folder, image, client)
    yield world
    for running in world.runtime.list():
        world.runtime.stop(running.session_id, 0, "the test is over")
    for runtime in world.opened:
        runtime.close()
    if world.in_docker:
        for left in world.client.containers(all=True, filters={"label": f"{LABEL}.install={install}"}):
            remove(world.client, left["Id"])


def test_a_started_agent_is_found_and_listed(world: World) -> None:
    """Any worker of the host finds the agent, with its instance and epoch."""
    started = world.started()
    other = world.make()
    assert other.find("s1") == started
    assert other.is_alive("s1")
    assert [(found.session_id, found.instance_id, found.epoch) for found in other.list()] == [
        ("s1", started.instance_id, 3)
    ]
    assert started.pid is not None
    assert process_start_time(started.pid) == started.pid_start


def test_a_session_without_an_agent_is_not_alive(world: World) -> None:
    """Unknown sessions are simply not there."""
    assert world.runtime.find("s1") is None
    assert not world.runtime.is_alive("s1")
    assert world.runtime.list() == []
    assert world.runtime.stop("s1", 1, "test") is None
    assert world.runtime.last_log("s1") == ""


def test_a_second_start_is_refused_and_names_the_first(world: World) -> None:
    """One session never has two live agents."""
    first = world.started(instance_id="inst-first")
    with pytest.raises(AlreadyRunningError) as refused:
        world.make().start(world.spec(instance_id="inst-second"))
    assert refused.value.running == first
    assert len(world.runtime.list()) == 1


def test_of_simultaneous_starts_one_wins(world: World) -> None:
    """The kernel or the daemon decides, whoever asks at the same moment."""
    runtimes = [world.make() for _ in range(4)]
    ready = threading.Barrier(len(runtimes))

    def start(runtime: Runtime) -> str:
        ready.wait()
        try:
            return runtime.start(world.spec()).instance_id
        except (AlreadyRunningError, StartFailedError) as error:
            return type(error).__name__

    with ThreadPoolExecutor(len(runtimes)) as pool:
        outcomes = list(pool.map(start, runtimes))
    winners = [outcome for outcome in outcomes if outcome.startswith("inst-")]
    assert len(winners) == 1
    assert [found.instance_id for found in world.runtime.list()] == winners


def test_stop_asks_first(world: World) -> None:
    """A stopped agent gets SIGTERM and time to end; afterwards nothing of it lives."""
    started = world.started()
    ended = world.make().stop("s1", 5, "for the test")
    assert ended == Exit("s1", started.instance_id, 0, "stopped: for the test")
    assert (world.work() / "bye").exists()
    assert world.runtime.find("s1") is None
    assert not world.runtime.is_alive("s1")
    assert started.pid is not None
    assert process_start_time(started.pid) != started.pid_start


def test_stop_kills_what_does_not_listen(world: World) -> None:
    """After the grace the agent is killed."""
    world.started(DEAF)
    began = time.monotonic()
    ended = world.runtime.stop("s1", 1, "deaf")
    assert ended is not None
    assert ended.code == 137
    assert 0.9 <= time.monotonic() - began < 5
    assert world.runtime.find("s1") is None


def test_a_session_can_start_again(world: World) -> None:
    """The next instance takes the session's place, after a stop and after a crash."""
    world.started()
    world.runtime.stop("s1", 5, "test")
    second = world.started()
    assert second.pid is not None
    os.kill(second.pid, signal.SIGKILL)
    wait_for(lambda: not world.runtime.is_alive("s1"))
    third = world.started(instance_id="inst-third")
    assert world.runtime.find("s1") == third


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("tell('ready')", 0, "ended by itself"),
        ("tell('ready'); sys.exit('no luck today')", 1, "exit code 1: no luck today"),
        ("tell('ready'); os.kill(os.getpid(), signal.SIGKILL)", 137, "killed by SIGKILL"),
    ],
)
def test_an_exit_is_reported_at_once_with_its_reason(world: World, script: str, code: int, reason: str) -> None:
    """A watcher hears of every end, how it came and what was said last, in well under a second."""
    with world.watching() as exits:
        world.start("sys.exit()", "s0")
        wait_for(lambda: exits, what="the watcher is up when it has reported this one")
        started = world.started(script)
        began = time.monotonic()
        wait_for(lambda: [seen for seen in exits if seen.session_id == "s1"])
        assert time.monotonic() - began < 1
    assert exits[-1] == Exit("s1", started.instance_id, code, reason)


def test_an_exit_nobody_watched_is_reported_once(world: World) -> None:
    """The next watcher hears of it first, and the one after that no more."""
    started = world.start("sys.exit(3)")
    wait_for(lambda: not world.runtime.is_alive("s1"))
    with world.watching() as exits:
        wait_for(lambda: exits)
    assert exits == [Exit("s1", started.instance_id, 3, "exit code 3")]
    with world.watching() as exits:
        world.start("sys.exit()", "s2")
        wait_for(lambda: exits)
    assert {seen.session_id for seen in exits} == {"s2"}


def test_how_an_agent_ended_is_known_until_another_takes_its_place(world: World) -> None:
    """Whoever finds it dead can say why, even before a watcher did; of others, and of the living, nothing is known."""
    started = world.start("sys.exit('no luck today')")
    wait_for(lambda: not world.runtime.is_alive("s1"))
    ended = Exit("s1", started.instance_id, 1, "exit code 1: no luck today")
    assert world.make().last_exit("s1", started.instance_id) == ended
    assert world.runtime.last_exit("s1", "inst-other") is None
    assert world.runtime.last_exit("s2", started.instance_id) is None
    second = world.started()
    assert world.runtime.last_exit("s1", started.instance_id) is None
    assert world.runtime.last_exit("s1", second.instance_id) is None


def test_a_failed_report_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit is only forgotten when somebody has taken note of it."""
    monkeypatch.setattr(process, "REPORT_AGAIN_S", 0.2)
    monkeypatch.setattr(docker_watch, "REPORT_AGAIN_S", 0.2)
    monkeypatch.setattr(docker_watch, "RECONNECT_S", 0.1)
    calls: list[Exit] = []

    def fail_once(ended: Exit) -> None:
        calls.append(ended)
        if len(calls) == 1:
            raise RuntimeError("the database is away")

    with world.watching(fail_once):
        world.start("sys.exit(3)")
        wait_for(lambda: len(calls) >= 2)
    assert calls[0] == calls[1]


def _start_and_die(world: World, spec: StartSpec) -> None:
    world.make().start(spec)
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_agent_survives_the_death_of_its_starter(world: World) -> None:
    """A worker that is killed leaves its agents running, able to log, and others watch them."""
    script = "tell('ready'); [(time.sleep(0.05), print('still here', flush=True)) for _ in range(20)]; " + WAIT
    spec = world.spec(script)
    with world.watching() as exits:
        worker = multiprocessing.get_context("fork").Process(target=_start_and_die, args=(world, spec))
        worker.start()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        world.told("ready")
        found = world.runtime.find("s1")
        assert found is not None
        assert found.instance_id == spec.instance_id
        wait_for(lambda: "still here" in world.runtime.last_log("s1"))
        assert found.pid is not None
        os.kill(found.pid, signal.SIGKILL)
        wait_for(lambda: exits)


def test_what_the_agent_started_ends_with_it(world: World) -> None:
    """A child that left the agent's process group does not outlive it."""
    script = (
        "import subprocess; "
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True); tell('child', child.pid); " + WAIT
    )
    started = world.started(script)
    child = int(world.told("child"))
    if world.in_docker:
        child = _host_pid(started, child)
    born = process_start_time(child)
    assert born is not None
    world.runtime.stop("s1", 5, "test")
    wait_for(lambda: process_start_time(child) != born)


def _host_pid(started: Running, inner: int) -> int:
    """The pid on this host of a process with pid `inner` in the container."""
    assert started.pid is not None
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            pids = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()[1:]
            same = (status.parent / "ns/pid").readlink() == Path(f"/proc/{started.pid}/ns/pid").readlink()
        except (OSError, StopIteration):
            continue
        if same and pids[-1] == str(inner):
            return int(status.parent.name)
    raise AssertionError(f"no process {inner} in the container")


def test_no_secret_of_the_worker_reaches_the_agent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's environment is what was meant for it, never the worker's."""
    monkeypatch.setenv("NANOTASKS_DATABASE_URL", "postgresql://user:hunter2@db/x")
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    started = world.started("import json; tell('env', json.dumps(dict(os.environ))); " + WAIT)
    environment = json.loads(world.told("env"))
    assert "hunter2" not in json.dumps(environment)
    assert not [name for name in environment if name.startswith("NANOTASKS_")]
    assert b"hunter2" not in Path(f"/proc/{started.pid}/environ").read_bytes()


def test_no_descriptor_of_the_worker_reaches_the_agent(world: World, tmp_path: Path) -> None:
    """Standard input is empty; open files and sockets of the worker stay its own."""
    secret = (tmp_path / "secret").open("w")
    os.set_inheritable(secret.fileno(), True)
    script = (
        "tell('fds', '\\n'.join(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
        "if os.path.lexists(f'/proc/self/fd/{n}'))); " + WAIT
    )
    with secret:
        world.started(script)
    descriptors = world.told("fds").splitlines()
    assert "/dev/null" in descriptors
    assert not [name for name in descriptors if "secret" in name or name.startswith("socket:")]
    locks = [name for name in descriptors if name.endswith(".lock")]
    assert len(locks) == (0 if world.in_docker else 1)


def test_no_new_privileges(world: World) -> None:
    """Nothing the agent executes can gain privileges."""
    world.started("tell('status', open('/proc/self/status').read()); " + WAIT)
    assert "NoNewPrivs:\t1" in world.told("status")


def test_limits_are_in_force(world: World) -> None:
    """Open files and core dumps are limited as asked."""
    world.started(
        "import resource; tell('limits', (resource.getrlimit(resource.RLIMIT_NOFILE)[0], "
        "resource.getrlimit(resource.RLIMIT_CORE)[0])); " + WAIT
    )
    assert world.told("limits") == "(256, 0)"


def test_memory_is_limited(world: World) -> None:
    """An agent that takes more memory than it may have ends, and nothing else does."""
    with world.watching() as exits:
        world.start("tell('ready'); hog = bytearray(400_000_000); tell('fat')")
        wait_for(lambda: exits)
    assert exits[0].code != 0
    assert exits[0].reason == ("out of memory (limit 200 MiB)" if world.in_docker else "exit code 1: MemoryError")
    assert not (world.work() / "fat").exists()


def test_the_log_keeps_the_newest_lines(world: World) -> None:
    """What an agent prints is readable while it runs, and takes no more room than its cap."""
    world.started(
        "[print(f'line {n} ' + 'x' * 80) for n in range(20_000)]; print('the last line', flush=True); " + WAIT
    )
    wait_for(lambda: world.runtime.last_log("s1").endswith("the last line"))
    assert len(world.runtime.last_log("s1", 3).splitlines()) == 3
    log = _docker_log(world) if world.in_docker else world.folder / "logs" / "agents" / "s1.log"
    assert log.stat().st_size <= 64 * 1024 * 1.1


def _docker_log(world: World) -> Path:
    assert isinstance(world.runtime, DockerRuntime)
    path = Path(world.client.inspect_container(world.runtime.container_name("s1"))["LogPath"])
    if not os.access(path.parent, os.R_OK):
        pytest.skip("the daemon's log files are not readable for this user")
    return path


def test_a_start_that_fails_says_why_and_leaves_nothing(world: World) -> None:
    """A folder that is missing is named; the next start is not disturbed."""
    missing = world.folder / "missing"
    broken = {"mounts": (Mount(missing, "/workspace"),)} if world.in_docker else {"working_dir": str(missing)}
    with pytest.raises(StartFailedError) as failed:
        world.runtime.start(world.spec(**broken))
    assert str(missing) in str(failed.value)
    assert world.runtime.list() == []
    world.started()


def test_a_runner_that_dies_at_once_is_an_exit(world: World) -> None:
    """A runner that cannot even be imported is not a failed start: its exit names the error."""
    with world.watching() as exits:
        world.runtime.start(world.spec(command=("python3", "-m", "no_such_runner")))
        wait_for(lambda: exits)
    assert exits[0].code == 1
    assert "no_such_runner" in exits[0].reason


def test_an_agent_dies_with_its_launcher(process_world: World) -> None:
    """When the launcher is killed the lock is free, the agent is gone, and the exit says so."""
    started = process_world.started(DEAF)
    assert started.pid is not None
    launcher = int(_status(started.pid)["PPid"])
    with process_world.watching() as exits:
        os.kill(launcher, signal.SIGKILL)
        wait_for(lambda: exits)
    assert exits[0].code is None
    assert exits[0].reason.startswith("lost")
    assert process_start_time(started.pid) != started.pid_start


def test_what_a_killed_launcher_leaves_is_cleared_away(process_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of the agent that inherited the lock does not block the session for ever."""
    monkeypatch.setattr(process, "RECORD_PATIENCE_S", 0.1)
    script = "child = os.fork()\nif child == 0:\n os.setsid(); time.sleep(600)\ntell('child', child)\n" + WAIT
    started = process_world.started(script)
    child = int(process_world.told("child"))
    assert started.pid is not None
    os.kill(int(_status(started.pid)["PPid"]), signal.SIGKILL)
    wait_for(lambda: process_start_time(started.pid or 0) is None)
    assert process_world.runtime.is_alive("s1")
    assert process_world.runtime.find("s1") is None
    assert process_start_time(child) is None
    process_world.started()


def test_orphans_of_a_running_agent_are_adopted_by_its_launcher(process_world: World) -> None:
    """What a dying child of the agent leaves behind stays within reach."""
    script = (
        "import subprocess; subprocess.run(['sh', '-c', 'sleep 600 & echo $! > \"$WORK/orphan\"'], check=True); " + WAIT
    )
    started = process_world.started(script)
    assert started.pid is not None
    orphan = int(process_world.told("orphan"))
    launcher = _status(started.pid)["PPid"]
    wait_for(lambda: _status(orphan)["PPid"] == launcher)
    process_world.runtime.stop("s1", 5, "test")
    wait_for(lambda: process_start_time(orphan) is None)


def test_ended_agents_leave_no_lock_files(process_world: World) -> None:
    """Listing costs what lives: a stopped agent's file goes with it, a crashed one's when it was reported."""
    process_world.started(session_id="s1")
    process_world.runtime.stop("s1", 5, "test")
    with process_world.watching() as exits:
        process_world.start("sys.exit(1)", "s2")
        wait_for(lambda: exits)
    wait_for(lambda: not list((process_world.folder / "run" / "agents").iterdir()))


@pytest.mark.parametrize("content", ["", "not json\n", '{"session": "s1"}\n', "[]\n"])
def test_a_damaged_lock_file_stops_nothing(process_world: World, content: str) -> None:
    """A file that nobody holds is no agent, whatever it says."""
    path = process_world.folder / "run" / "agents" / "s1.lock"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert process_world.runtime.list() == []
    with process_world.watching():
        wait_for(lambda: not path.exists())
        process_world.started()


def test_a_lock_that_says_nothing_of_its_holder_hides_no_other_agent(process_world: World) -> None:
    """A launcher that was stopped right after it took the lock, or met a full disk, has written no record."""
    process_world.start("wait()", "s1")
    path = process_world.folder / "run" / "agents" / "s2.lock"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [running.session_id for running in process_world.runtime.list()] == ["s1"]
        with pytest.raises(RuntimeDownError):
            process_world.runtime.find("s2")


def test_a_session_id_cannot_leave_its_folder(process_world: World) -> None:
    """An id that is no plain file name is refused."""
    with pytest.raises(InvalidError):
        process_world.runtime.start(replace(process_world.spec(), session_id="../s1"))


def test_agents_yield_to_the_host(process_world: World) -> None:
    """Agents run at a lower priority, and are the first to go when memory runs out."""
    started = process_world.started()
    assert started.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, started.pid) == os.getpriority(os.PRIO_PROCESS, 0) + process.NICE
    assert int(Path(f"/proc/{started.pid}/oom_score_adj").read_text()) >= 300


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_container_is_confined(docker_world: World) -> None:
    """No capability, no root, no writable root file system, no network, an init as first process."""
    script = (
        "import socket; tell('facts', repr((os.getuid(), sorted(n for _, n in socket.if_nameindex()), "
        "os.access('/etc', os.W_OK), os.access('/app/src', os.W_OK), os.access('/tmp', os.W_OK), "
        "os.access(os.environ['HOME'], os.W_OK), open('/proc/1/comm').read().strip()))); " + WAIT
    )
    started = docker_world.started(script)
    uid = os.getuid() or 1000
    assert docker_world.told("facts") == repr((uid, ["lo"], False, False, True, True, "docker-init"))
    assert started.pid is not None
    status = _status(started.pid)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["Seccomp"] == "2"


def test_processes_of_a_container_are_limited(docker_world: World) -> None:
    """A fork bomb hits the limit."""
    script = (
        "import subprocess\nkids = []\n"
        "try:\n for n in range(200): kids.append(subprocess.Popen(['sleep', '600']))\n"
        "except OSError: pass\n"
        "tell('count', len(kids))\n" + WAIT
    )
    docker_world.started(script)
    assert 40 < int(docker_world.told("count")) < 64


def test_a_read_only_mount_is_read_only(docker_world: World, tmp_path: Path) -> None:
    """The agent can read what the host owns, and not change it."""
    owned = tmp_path / "owned"
    owned.mkdir()
    (owned / "inbound.db").write_text("rows")
    script = (
        "tell('read', open('/host/inbound.db').read())\n"
        "try: open('/host/inbound.db', 'w')\n"
        "except OSError as error: tell('refused', error.strerror)\n" + WAIT
    )
    spec = docker_world.spec(script)
    docker_world.runtime.start(replace(spec, mounts=(*spec.mounts, Mount(owned, "/host"))))
    assert docker_world.told("read") == "rows"
    assert docker_world.told("refused") == "Read-only file system"


def test_the_agents_user_can_write_what_the_host_made(docker_world: World) -> None:
    """Files that a host running as root put into the workspace are writable for the agent's user."""
    inner = docker_world.work() / "folder"
    inner.mkdir()
    (inner / "file").write_text("of the host")
    script = "open(os.environ['WORK'] + '/folder/file', 'w').write('of the agent'); " + WAIT
    docker_world.runtime.start(docker_world.spec(script))
    docker_world.told("ready")
    assert (inner / "file").read_text() == "of the agent"


def test_a_container_that_was_created_but_never_started_is_replaced(
    docker_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that died between create and start does not block the session."""
    monkeypatch.setattr(docker, "STARTING_S", 0.1)
    _leave_created(docker_world)
    assert docker_world.runtime.find("s1") is None
    docker_world.started(instance_id="inst-next")
    assert [found.instance_id for found in docker_world.runtime.list()] == ["inst-next"]


def _leave_created(world: World) -> None:
    runtime = world.make()
    assert isinstance(runtime, DockerRuntime)
    config = runtime._config(world.spec(), (1000, 1000), world.client.info())
    world.client.create_container_from_config(config, runtime.container_name("s1"))


def test_a_container_without_its_flags_is_never_started(docker_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not set, here by a proxy before the daemon, is noticed on the created object, which is removed."""
    real = APIClient.create_container_from_config

    def rewrite(client: APIClient, config: dict[str, Any], name: str) -> Any:
        weaker = {**config["HostConfig"], "PidsLimit": 0, "Privileged": True}
        return real(client, {**config, "HostConfig": weaker}, name)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(APIClient, "create_container_from_config", rewrite)
    with pytest.raises(StartFailedError, match="Privileged, PidsLimit"):
        docker_world.runtime.start(docker_world.spec())
    assert isinstance(docker_world.runtime, DockerRuntime)
    left = docker_world.client.containers(all=True, filters={"name": docker_world.runtime.container_name("s1")})
    assert left == []


def test_a_missing_image_says_how_to_build_it(docker_world: World) -> None:
    """The error names the image and the command that makes it."""
    with pytest.raises(StartFailedError, match=r"no-such-image.*nanotasks image build"):
        docker_world.runtime.start(docker_world.spec(image="no-such-image:latest"))


def test_a_name_taken_by_a_stranger_is_not_touched(docker_world: World) -> None:
    """A container that is not ours is named, not removed."""
    assert isinstance(docker_world.runtime, DockerRuntime)
    client = docker_world.client
    name = docker_world.runtime.container_name("s1")
    stranger = client.create_container(docker_world.image, ["sleep", "60"], name=name)
    try:
        with pytest.raises(StartFailedError, match="docker rm"):
            docker_world.runtime.start(docker_world.spec())
        assert client.inspect_container(stranger["Id"])["Id"] == stranger["Id"]
    finally:
        remove(client, stranger["Id"])


def test_a_removed_container_is_an_exit(docker_world: World) -> None:
    """`docker rm -f` by an operator is seen like any other end."""
    with docker_world.watching() as exits:
        docker_world.start("sys.exit()", "s0")
        wait_for(lambda: exits, what="the watcher is up")
        started = docker_world.started()
        remove(docker_world.client, started.runtime_id)
        wait_for(lambda: [seen for seen in exits if seen.instance_id == started.instance_id])
    assert docker_world.runtime.find("s1") is None


def test_another_installation_is_not_listed(docker_world: World) -> None:
    """Two installations on one daemon do not see each other's agents."""
    docker_world.started()
    with closing(DockerRuntime("another", "host-1")) as other:
        assert other.list() == []
        assert other.find("s1") is None


def test_the_watcher_connects_again(docker_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that does not answer is asked again; what ended meanwhile is reported."""
    monkeypatch.setattr(docker_watch, "RECONNECT_S", 0.05)
    assert isinstance(docker_world.runtime, DockerRuntime)
    started = docker_world.start("sys.exit(4)")
    attempts: list[int] = []
    exits: list[Exit] = []
    stop = threading.Event()

    def connect() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeDownError("Docker does not answer.")
        return new_client(30)

    watcher = docker_watch.ExitWatcher(connect, docker_world.runtime._labels, exits.append, stop)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    wait_for(lambda: exits)
    stop.set()
    thread.join(timeout=10)
    assert exits == [Exit("s1", started.instance_id, 4, "exit code 4")]


def test_docker_that_is_away_is_a_dependency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a daemon a start fails with what to do, and nobody is told that the agent is dead."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    runtime = DockerRuntime("t0", "host-1")
    with pytest.raises(RuntimeDownError, match="NANOTASKS_RUNTIME=process"):
        runtime.find("s1")
    spec = StartSpec("s1", "ag", "inst", 1, "image", LIMITS, "/")
    with pytest.raises(StartFailedError, match="Docker does not answer"):
        runtime.start(spec)
