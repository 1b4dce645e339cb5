"""What a person feels: the echo of a warm agent, idle and under load, a burst, and the first answer of a cold one."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.figures import latency
from tests.benchmarks.stack import CHATS, Stack
from tests.benchmarks.terminal import Terminal

ECHOES = 200
BURSTS = 5
BURST = 30
LOAD_S = 10
COLD = 20


def measure(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure of this module over a running stack."""
    docker = stack.settings.runtime == "docker"
    yield "cold_start", latency(_cold(stack), **({"p50": 450.0} if docker else {}))
    yield "warm_echo", latency(_echoes(stack), p50=30.0, p99=100.0)
    yield "burst_of_30_last_reply", latency(_bursts(stack), max=300.0)
    chats = CHATS if not docker else 20
    yield f"echo_at_100_per_s_over_{chats}_chats", latency(_load(stack, chats), p99=250.0)


def _cold(stack: Stack) -> list[float]:
    return [_first_answer(stack, f"c{CHATS + number}") for number in range(COLD)]


def _first_answer(stack: Stack, chat: str) -> float:
    client = Terminal(stack.terminal, chat)
    started = time.monotonic()
    client.say("echo cold", f"cold-{chat}")
    client.wait("message")
    taken = time.monotonic() - started
    client.wait("settled")
    client.close()
    return taken


def _echoes(stack: Stack) -> list[float]:
    client = Terminal(stack.terminal, "c0")
    samples = []
    for number in range(ECHOES + 5):
        started = time.monotonic()
        client.say("echo warm", f"warm-{number}")
        client.wait("message")
        samples.append(time.monotonic() - started)
        client.wait("settled")
        time.sleep(0.05)  # "idle" means that nothing of the last message is still going on
    client.close()
    return samples[5:]


def _bursts(stack: Stack) -> list[float]:
    client = Terminal(stack.terminal, "c0")
    samples = []
    for burst in range(BURSTS):
        started = time.monotonic()
        last = started
        waiting = set()
        for number in range(BURST):
            ident = f"burst-{burst}-{number}"
            waiting.add(ident)
            client.say("echo burst", ident)
        while waiting:
            for frame in client.frames(30):
                if frame["type"] == "message":
                    last = time.monotonic()
                elif frame["type"] == "settled":
                    waiting.discard(frame["id"])
        samples.append(last - started)
    client.close()
    return samples


def _load(stack: Stack, chats: int) -> list[float]:
    clients = [Terminal(stack.terminal, f"c{number}") for number in range(chats)]
    for number, client in enumerate(clients):
        client.say("echo warm up", f"up-{number}")
    for client in clients:
        client.wait("settled", 120)
    samples = _paced(clients, rate_per_s=100, seconds=LOAD_S)
    for client in clients:
        client.close()
    return samples


def _paced(clients: list[Terminal], rate_per_s: int, seconds: int) -> list[float]:
    """Say something at a steady rate, round robin; the delay of each answer counts from when it was due to be said."""
    total = rate_per_s * seconds
    begun = time.monotonic()
    said_at: dict[Terminal, list[float]] = {client: [] for client in clients}
    samples: list[float] = []
    said = 0
    while len(samples) < total:
        now = time.monotonic()
        assert now - begun < seconds + 60, f"{total - len(samples)} answers are missing"
        while said < total and begun + said / rate_per_s <= now:
            client = clients[said % len(clients)]
            said_at[client].append(begun + said / rate_per_s)
            client.say("echo load", f"load-{begun}-{said}")
            said += 1
        pause = max(0.0, begun + said / rate_per_s - time.monotonic()) if said < total else 0.5
        for client in select.select(clients, [], [], pause)[0]:
            while frames := client.frames(0):
                if frames[0]["type"] == "message":
                    samples.append(time.monotonic() - said_at[client].pop(0))
    return samples
