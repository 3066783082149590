"""What locust asks a server: every request once, at its time, whether or not the others have been answered.

Users of locust take the arrivals of a Poisson process one by one and sleep until they are due, so that the
loop is open as long as one user is free; a latency begins when its request was due. Without a rate, users ask
one request after the other: a closed loop. A line of JSON tells what became of each. Bodies are made before
the first request, and answers are looked at after the last, so that locust itself is not late.
"""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
from gevent.event import AsyncResult
from locust import FastHttpUser, events, task
from locust.exception import StopUser

sys.path.append(str(Path(__file__).resolve().parent.parent))

from workloads import make_candidates, make_user

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from locust.env import Environment

PATH = "/v1/rerank/profile"
USERS = 50  # who ask again and again: as many prefixes


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=0.0, help="arrivals a second; 0 for a closed loop")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=10, help="of each request")
    parser.add_argument("--words", type=int, default=30, help="of each candidate")
    parser.add_argument("--profile-words", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSONL")


class Plan:
    """The requests of a run, and what became of them."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        chance = random.Random(options.seed)  # noqa: S311  (no secrets here)
        gaps = (chance.expovariate(options.rate) if options.rate else 0.0 for _ in range(options.requests))
        bodies = [_body(number, options) for number in range(options.requests)]
        self.arrivals = iter(list(zip(range(options.requests), accumulate(gaps), bodies, strict=True)))
        self.begin: AsyncResult[float] = AsyncResult()
        self.rows: list[dict[str, Any]] = []

    def write(self) -> None:
        """Write one line for each request."""
        with self.options.out.open("w", encoding="utf-8") as file:
            for row in self.rows:
                own = _own(row.pop("echo"), row.pop("content"), row, self.options)
                file.write(json.dumps({**row, "own": own}) + "\n")


class Asker(FastHttpUser):
    """One connection; asks for what is due next."""

    plan: ClassVar[Plan]
    network_timeout = connection_timeout = 120.0

    @task
    def ask(self) -> None:
        """Take the next arrival, wait until it is due, ask, note."""
        plan = self.plan
        number, at, body = next(plan.arrivals, (-1, 0.0, b""))
        if number < 0:
            raise StopUser
        begin = plan.begin.get()
        due = begin + at if plan.options.rate else time.perf_counter()
        gevent.sleep(max(0.0, due - time.perf_counter()))
        name = f"{plan.options.seed}-{number}"
        headers = {"X-Request-ID": name, "Content-Type": "application/json"}
        sent = time.perf_counter()
        with self.client.post(PATH, data=body, headers=headers, catch_response=True) as answer:
            took = time.perf_counter() - sent
            answer.success()  # what an answer is worth is judged from the rows
            row = {"id": name, "number": number, "status": answer.status_code}
            row |= {"at_s": due - begin, "late_s": sent - due, "took_s": took}
            row |= {"echo": answer.headers and answer.headers.get("X-Request-ID"), "content": answer.content}
        plan.rows.append(row)
        if len(plan.rows) == plan.options.requests:
            gevent.spawn(self.environment.runner.quit)


def _body(number: int, options: Namespace) -> bytes:
    """Make a request whose candidates' ids are of no other."""
    user = make_user(number % USERS, options.seed, options.profile_words)
    items = make_candidates(options.candidates, options.seed * 100_000 + number, options.words)
    items = [{**item, "item_id": f"{number}-{item['item_id']}"} for item in items]
    return json.dumps({"user": user, "items": items}).encode()


def _own(echo: str | None, content: bytes, row: dict[str, Any], options: Namespace) -> bool:
    """Return whether an answer is that of its request, and whole."""
    if row["status"] == 0:
        return True  # there was none
    answer = json.loads(content)
    if row["status"] != 200:
        return echo == row["id"] and "code" in answer
    rated = sorted(each["item_id"] for each in answer["results"] if each["status"] == "ok")
    expected = sorted(f"{row['number']}-item-{i}" for i in range(options.candidates))
    return echo == row["id"] and rated == expected


@events.test_start.add_listener
def _start(environment: Environment, **_: object) -> None:
    Asker.plan = Plan(environment.parsed_options)


@events.spawning_complete.add_listener
def _begin(**_: object) -> None:
    Asker.plan.begin.set(time.perf_counter())


@events.quitting.add_listener
def _end(**_: object) -> None:
    Asker.plan.write()
