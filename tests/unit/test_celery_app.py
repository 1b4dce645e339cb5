"""The topology: what goes where, and what may never change by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanotasks import celery_app
from nanotasks.celery_app import SIGNALS, Message
from nanotasks.settings import Settings


@pytest.mark.parametrize(
    ("kind", "ids", "message"),
    [
        ("route", ("file", "room"), Message("intake.route", ("file", "room"), "inbound")),
        ("append", ("s1", "a"), Message("intake.append", ("s1",), "host.a")),
        ("wake", ("s1", "a"), Message("wake.session", ("s1",), "host.a")),
        ("deliver", ("s1", "a"), Message("deliver.session", ("s1",), "host.a")),
        ("attempt", ("d1", "a", 3), Message("deliver.attempt", ("d1", 3), "host.a", "d1", 2)),
        ("containers", ("a",), Message("sweep.containers", ("a",), "host.a")),
    ],
)
def test_each_signal_goes_to_its_queue(kind: str, ids: tuple[object, ...], message: Message) -> None:
    """Work on a host's files goes to that host's queue, everything else to a queue of every worker."""
    assert SIGNALS[kind](*ids) == message


def test_a_deliverys_attempts_share_one_task_id() -> None:
    """Flower shows one line per delivery: the same task id, and a count of retries that grows."""
    attempts = [SIGNALS["attempt"]("d1", "a", number) for number in (2, 3, 4)]
    assert {message.task_id for message in attempts} == {"d1"}
    assert [message.retries for message in attempts] == [1, 2, 3]


def test_the_rules_that_keep_work_safe() -> None:
    """The settings without which a killed worker, a restarted Redis or a long task would lose or double work."""
    conf = celery_app.configuration(Settings(redis_url="redis://h:1/0"))
    assert conf["task_acks_late"] and conf["task_reject_on_worker_lost"]
    assert conf["worker_prefetch_multiplier"] == 1
    assert conf["worker_cancel_long_running_tasks_on_connection_loss"] is False
    assert conf["accept_content"] == ["json"]
    assert conf["task_ignore_result"]
    assert conf["task_soft_time_limit"] < conf["task_time_limit"]
    assert conf["task_time_limit"] < conf["broker_transport_options"]["visibility_timeout"]


def test_every_tick_expires() -> None:
    """A tick that nobody read in time is worthless, and a dead worker's queue cannot grow."""
    for entry in celery_app.beat_schedule(Settings()).values():
        assert entry["options"]["queue"] == "default"
        assert entry["options"]["expires"] >= entry["schedule"]


@pytest.mark.parametrize(
    ("configured", "broker"),
    [
        ("redis://h:6379/1", "redis://h:6379/1"),
        ("rediss://u:p@h", "rediss://u:p@h"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("valkey://h:1", "redis://h:1"),
    ],
)
def test_any_usual_form_of_a_redis_url_is_understood(configured: str, broker: str) -> None:
    """People paste the URL they have."""
    assert celery_app.broker_url(Settings(redis_url=configured)) == broker


def test_without_a_url_the_private_redis_is_found(tmp_path: Path) -> None:
    """Every process of an installation finds the socket of `nanotasks up` by itself."""
    config = Settings(data_dir=tmp_path, runtime_dir=str(tmp_path / "run"))
    assert celery_app.broker_url(config) == f"redis+socket://{tmp_path}/run/redis.sock"
