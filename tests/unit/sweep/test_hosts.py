"""Signs of life: which hosts count as up, and which machine may be which host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.errors import ConfigError
from nanotasks.settings import Settings
from nanotasks.sweep import hosts

CONFIG = Settings(host_id="a")


def test_a_host_is_up_while_it_gives_signs_of_life(central: Database) -> None:
    """Its row appears with its first heartbeat, is down after a silence, and up again with the next."""
    hosts.heartbeat(central, CONFIG)
    assert hosts.mark_silent(central, CONFIG) == []
    assert hosts.hosts_at_work(central) == ["a"]
    with central.write() as session:
        session.execute(update(Host).values(heartbeat_at=1))
    assert hosts.mark_silent(central, CONFIG) == ["a"]
    assert hosts.hosts_at_work(central) == []
    hosts.heartbeat(central, CONFIG)
    assert hosts.hosts_at_work(central) == ["a"]


def test_a_host_that_was_stopped_is_down_at_once(central: Database) -> None:
    """Nobody waits for its silence; the next heartbeat, of another worker too, calls it up."""
    hosts.heartbeat(central, CONFIG)
    hosts.mark_stopped(central, CONFIG)
    assert hosts.hosts_at_work(central) == []
    hosts.heartbeat(central, CONFIG)
    assert hosts.hosts_at_work(central) == ["a"]


def test_one_host_id_is_one_data_directory(central: Database) -> None:
    """While one gives signs of life another is refused; once it was stopped or silent it is replaced, and refused."""
    hosts.heartbeat(central, CONFIG)
    hosts.heartbeat(central, CONFIG, "here")
    hosts.heartbeat(central, CONFIG, "here")
    with pytest.raises(hosts.HostTakenError, match="NANOTASKS_HOST_ID"):
        hosts.heartbeat(central, CONFIG, "there")
    hosts.mark_stopped(central, CONFIG, "there")
    assert hosts.hosts_at_work(central) == ["a"]
    hosts.mark_stopped(central, CONFIG, "here")
    hosts.heartbeat(central, CONFIG, "there")
    with pytest.raises(hosts.HostTakenError):
        hosts.heartbeat(central, CONFIG, "here")
    with central.write() as session:
        session.execute(update(Host).values(heartbeat_at=1))
    hosts.heartbeat(central, CONFIG, "here")
    with central.read() as session:
        assert session.execute(select(Host.place, Host.epoch, Host.state)).all() == [("here", 3, "up")]


def test_a_host_without_its_files_is_refused(central: Database, tmp_path: Path) -> None:
    """Its groups' files are on shared storage that is not mounted now; agents would start with nothing."""
    shared = replace(CONFIG, data_dir=tmp_path / "data", shared_dir=str(tmp_path / "shared"))
    with pytest.raises(ConfigError, match="is not there"):
        hosts.sign_of_life(central, shared)
    (tmp_path / "shared").mkdir()
    hosts.sign_of_life(central, shared)
    with central.write() as session:
        session.add(AgentGroup(id="here", name="g", folder="here", created_at=0, host_id="a"))
    (tmp_path / "empty").mkdir()
    for other in (replace(shared, shared_dir=str(tmp_path / "empty")), replace(shared, shared_dir="")):
        with pytest.raises(hosts.FilesMissingError, match="not the directory where the agent groups of a live"):
            hosts.sign_of_life(central, other)
    hosts.sign_of_life(central, shared)
    with central.write() as session:
        session.execute(delete(AgentGroup).where(AgentGroup.id == "here"))
    hosts.sign_of_life(central, replace(shared, shared_dir=str(tmp_path / "empty")))


def test_a_draining_host_that_dies_is_found(central: Database) -> None:
    """What it holds has to be freed like that of any other; its state stays the operator's."""
    hosts.heartbeat(central, CONFIG)
    with central.write() as session:
        session.execute(update(Host).values(state="draining"))
    assert hosts.mark_silent(central, CONFIG) == []
    with central.write() as session:
        session.execute(update(Host).values(heartbeat_at=1))
    assert hosts.mark_silent(central, CONFIG) == ["a"]
    with central.read() as session:
        assert session.scalars(select(Host.state)).all() == ["draining"]


def test_a_draining_host_stays_so(central: Database) -> None:
    """A heartbeat does not undo an operator's decision."""
    hosts.heartbeat(central, CONFIG)
    with central.write() as session:
        session.execute(update(Host).values(state="draining"))
    hosts.heartbeat(central, CONFIG)
    with central.read() as session:
        assert session.scalars(select(Host.state)).all() == ["draining"]
