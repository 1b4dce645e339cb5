"""`nanotasks events` and `nanotasks metrics` as somebody uses them, with nothing else running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.installation import Installation, installation


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("events")) as made:
        made.say([message(number) for number in range(3)])
        yield made


def message(number: int) -> dict[str, Any]:
    return {"id": f"m-{number}", "platform_id": "room", "text": "between us", "sender_id": "ann"}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def follow(here: Installation, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nanotasks", "events", "--follow", *words],
        env=here.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_there_is_printed(here: Installation) -> None:
    """Without --follow it prints everything and ends; the options narrow it."""
    printed = here.run("events").stdout
    accepted = [line for line in lines(printed) if line["event"] == "message.accepted"]
    assert [line["message"] for line in accepted] == ["m-0", "m-1", "m-2"]
    assert "between us" not in printed
    assert len(lines(here.run("events", "--kind", "message", "--limit", "2").stdout)) == 2
    assert here.run("events", "--kind", "delivery").stdout == ""
    assert len(lines(here.run("events", "--json", "--since", "1h", "--kind", "message.accepted").stdout)) == 3
    refused = here.run("events", "--kind", "messages", code=2)
    assert "no events 'messages'" in refused.stderr


def test_what_happens_is_followed_until_ctrl_c(here: Installation) -> None:
    """Each line is there at once; Ctrl-C ends it with exit code 0 and without a word."""
    process = follow(here, "--since", "1h", "--kind", "message.accepted")
    assert process.stdout is not None
    before = [json.loads(process.stdout.readline())["message"] for _ in range(3)]
    here.say([message(7)])
    assert [*before, json.loads(process.stdout.readline())["message"]] == ["m-0", "m-1", "m-2", "m-7"]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_closed_pipe_ends_it_quietly(here: Installation) -> None:
    """Even one over which nothing would have been said for a long time."""
    process = follow(here, "--since", "1h", "--kind", "message.accepted")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_metrics_are_printed_and_parsed(here: Installation) -> None:
    """In Prometheus's format, or as JSON."""
    families = list(text_string_to_metric_families(here.run("metrics").stdout))
    due = {
        sample.labels["kind"]: sample.value
        for family in families
        if family.name == "nanotasks_oldest_due_seconds"
        for sample in family.samples
    }
    assert due["intake"] > 0 and due["delivery"] == 0
    as_json = json.loads(here.run("metrics", "--json").stdout)
    assert {"name": "nanotasks_hosts", "labels": {"state": "up"}, "value": 0} in as_json
