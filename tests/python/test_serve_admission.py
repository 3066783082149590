"""Who runs, who waits, who is turned away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt.serve.admission import Admission, Rate
from exp3rt_trt.serve.app import make_app
from exp3rt_trt.serve.faults import Fault
from exp3rt_trt.serve.options import ServeOptions
from serve_cases import BODY, LONG, PROFILE, ask, metric, served, until

if TYPE_CHECKING:
    from exp3rt_trt import Reranker

OPTIONS = ServeOptions(max_running_tokens=100, max_waiting_tokens=50, max_queue_s=2)


class Clock:
    """Goes forward when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _holder(admission: Admission, tokens: int, order: list[int], end: asyncio.Event) -> asyncio.Task[None]:
    async def hold() -> None:
        async with admission.slot(tokens, None):
            order.append(tokens)
            await end.wait()

    return asyncio.create_task(hold())


def test_who_comes_first_runs_first_and_the_last_finds_no_place() -> None:
    async def main() -> None:
        admission, order, end = Admission(OPTIONS), list[int](), asyncio.Event()
        tasks = [_holder(admission, tokens, order, end) for tokens in (40, 45, 46, 20, 19)]
        await _settle()
        assert order == [40, 45, 46]  # the last of them found 85 of 100 at work
        assert (admission.running_tokens, admission.waiting_tokens, admission.waiting) == (131, 39, 2)
        with pytest.raises(Fault, match="39 tokens wait already, the limit is 50") as full:
            admission.check(12)
        assert (full.value.status, full.value.retry_after_s) == (429, 1)
        with pytest.raises(Fault, match="about 51 tokens, the limit is 50") as never:
            admission.check(51)
        assert never.value.status == 413
        end.set()
        await asyncio.gather(*tasks)
        assert order == [40, 45, 46, 20, 19]
        assert (admission.running, admission.running_tokens, admission.waiting_tokens) == (0, 0, 0)

    asyncio.run(main())


def test_a_deadline_passes_in_the_queue_and_a_waiter_can_leave_it() -> None:
    async def main() -> None:
        admission, order, end = Admission(OPTIONS), list[int](), asyncio.Event()
        first = _holder(admission, 100 - 50, order, end)
        second = _holder(admission, 50, order, end)
        await _settle()
        with pytest.raises(Fault) as late:
            async with admission.slot(10, timeout_s=0.001):
                pytest.fail("it ran")
        assert (late.value.status, late.value.code) == (504, "deadline")
        leaving = _holder(admission, 11, order, end)
        await _settle()
        assert admission.waiting == 1
        leaving.cancel()
        await asyncio.wait([leaving])
        assert (admission.waiting, admission.waiting_tokens, admission.running) == (0, 0, 2)
        end.set()
        await asyncio.gather(first, second)
        assert order == [50, 50]

    asyncio.run(main())


def test_a_long_expected_wait_turns_away() -> None:
    async def main() -> None:
        clock = Clock()
        admission, order, end = Admission(OPTIONS, clock), list[int](), asyncio.Event()
        async with admission.slot(40, None):
            clock.now = 4.0  # 40 tokens in 4 s: 10 tokens a second
        tasks = [_holder(admission, tokens, order, end) for tokens in (50, 50, 20)]
        await _settle()
        assert admission.expected_wait_s() == pytest.approx(2.0)
        with pytest.raises(Fault, match=r"the wait would be about 2\.3 s, the limit is 2 s") as full:
            admission.check(3)
        assert (full.value.status, full.value.retry_after_s) == (429, 3)
        end.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_the_rate_counts_busy_time_and_forgets() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.tokens_per_s == 0
    clock.now = 1.0
    rate.add(100, busy=True)
    clock.now = 50.0
    rate.add(0, busy=False)
    assert rate.tokens_per_s == pytest.approx(100)
    for _ in range(100):
        clock.now += 1.0
        rate.add(10, busy=True)
    assert rate.tokens_per_s == pytest.approx(10, rel=0.01)


def test_a_full_server_answers_429_without_reading_or_computing(reranker: Reranker) -> None:
    app = make_app(reranker, ServeOptions(max_running_tokens=1, max_waiting_tokens=100))
    admission = app.state.ranking.admission
    admission.running_tokens, admission.waiting_tokens = 10, 100
    before = reranker.stats().groups_done
    full, unread = ask(app, BODY), ask(app, {"this": "is no request"})
    for (answer,) in (full, unread):
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["code"] == "over_capacity"
    assert reranker.stats().groups_done == before


def test_a_deadline_in_the_queue_costs_no_compute(reranker: Reranker) -> None:
    options = ServeOptions(max_running_tokens=1)
    with served(reranker, options) as client:
        with client.stream("POST", PROFILE, json={**LONG, "stream": True}, timeout=60) as long:
            assert long.status_code == 200  # it has the engine until its client goes away
            answer = client.post(PROFILE, json={**BODY, "user": {"profile": "New."}, "deadline_ms": 20})
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
            assert "in the queue" in answer.json()["error"]
            text = client.get("/metrics").text
            assert metric(text, "exp3rt_requests_running") == 1
            assert metric(text, "exp3rt_requests_waiting") == 0
        until(lambda: metric(client.get("/metrics").text, "exp3rt_requests_running") == 0)
        before = reranker.stats().prompt_tokens_computed
        assert client.post(PROFILE, json={**BODY, "user": {"profile": "New."}}).status_code == 200
        assert reranker.stats().prompt_tokens_computed > before  # of the user's prefix too: it was not there
