"""Annotation by a teacher behind HTTP: a real endpoint, and a proxy before it that makes trouble."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt.distill.annotate import AnnotateOptions, annotate, quarantine_of
from exp3rt_trt.distill.tasks import UnusableAnswerError, extraction, profiles, rationale
from exp3rt_trt.distill.teacher import Prices, Teacher, TeacherError
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("openai", reason="needs the extra [distill]")

LISTS = "[Like]\n- the humour\n\n[Dislike]\n- the ending"
ROW = {
    "user_id": "u",
    "item_id": "i",
    "user_persona": "[Like]\n- calm\n\n[Dislike]\n- None\n\n[Average Rating]\n6.0",
    "item_synopsis": "[Like]\n- slow\n\n[Dislike]\n- None\n\n[Average Rating]\n7.1",
    "item_description": "Title: The Long Way Home (1998)",
    "score": "8",
}


class Proxy:
    """Stands before an endpoint: answers each call with the next trouble, or passes it on if there is none.

    A trouble is a status, or a text that is sent as the answer's content; "broken" is a body that
    is no JSON.
    """

    def __init__(self, endpoint: str | None) -> None:
        self.calls = 0
        self.troubles: list[int | str] = []
        self._endpoint = endpoint
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send(*proxy.answer(self.path, body))

            def send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("retry-after-ms", "10")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._lock = threading.Lock()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            self.calls += 1
            trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, int):
            return trouble, json.dumps({"error": {"message": "injected"}}).encode()
        if trouble == "broken":
            return 200, b'{"id": "x", "choices": [{"mess'
        if trouble is not None or self._endpoint is None:
            return 200, completion(trouble or LISTS)
        host = self._endpoint.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
    ).encode()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy with no endpoint behind it: every call without a trouble is answered with a fine list."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    made = Proxy(None)
    yield made
    made.close()


def reviews(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"review": f"Review {i}: fine."}) + "\n" for i in range(count)))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ONE = AnnotateOptions(workers=1)


def test_refusals_that_pass_are_retried(tmp_path: Path, proxy: Proxy) -> None:
    proxy.troubles = [429, 500, 429]
    held = annotate(
        extraction(),
        reviews(tmp_path / "rows.jsonl", 2),
        tmp_path / "out.jsonl",
        Teacher("m", base_url=proxy.url),
        options=ONE,
    )
    assert (held.written, held.quarantined, held.left_out) == (2, 0, 0)
    assert proxy.calls == 5
    assert [row["output"] for row in lines(tmp_path / "out.jsonl")] == [LISTS, LISTS]


def test_a_refusal_for_good_ends_the_run_and_what_is_done_stays(tmp_path: Path, proxy: Proxy) -> None:
    rows, out = reviews(tmp_path / "rows.jsonl", 3), tmp_path / "out.jsonl"
    teacher = Teacher("m", base_url=proxy.url, retries=1)
    proxy.troubles = [LISTS, 401]
    with pytest.raises(TeacherError, match="401"):
        annotate(extraction(), rows, out, teacher, options=ONE)
    assert len(lines(out)) == 1
    proxy.troubles = [429, 429, 429]
    with pytest.raises(TeacherError, match="429"):
        annotate(extraction(), rows, out, teacher, options=ONE)
    assert proxy.calls == 4  # one retry and no more
    proxy.troubles = []
    assert annotate(extraction(), rows, out, teacher, options=ONE).written == 3
    assert proxy.calls == 6  # the first row is not asked about again


def test_answers_that_cannot_be_read_are_asked_for_again_then_quarantined(
    tmp_path: Path, proxy: Proxy
) -> None:
    proxy.troubles = ["broken", LISTS, "I liked it.", "[Like]\n\n[Dislike]\n- x", "broken"]
    rows, out = reviews(tmp_path / "rows.jsonl", 2), tmp_path / "out.jsonl"
    teacher = Teacher("m", base_url=proxy.url)
    held = annotate(extraction(), rows, out, teacher, options=ONE)
    assert (held.written, held.quarantined) == (1, 1)
    (bad,) = lines(quarantine_of(out))
    assert bad["row"] == {"review": "Review 1: fine."}
    assert [answer["answer"] for answer in bad["answers"]] == ["I liked it.", "[Like]\n\n[Dislike]\n- x", ""]
    calls = proxy.calls
    assert annotate(extraction(), rows, out, teacher, options=ONE) == held
    assert proxy.calls == calls  # quarantined rows are not paid for again


def test_a_line_cut_short_by_a_kill_is_made_again(tmp_path: Path, proxy: Proxy) -> None:
    rows, out = reviews(tmp_path / "rows.jsonl", 3), tmp_path / "out.jsonl"
    teacher = Teacher("m", base_url=proxy.url)
    annotate(extraction(), rows, out, teacher)
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])
    assert annotate(extraction(), rows, out, teacher).written == 3
    assert proxy.calls == 4
    assert sorted(lines(out), key=str) == sorted(map(json.loads, whole.splitlines()), key=str)


def test_the_cost_cap_holds_over_runs(tmp_path: Path, proxy: Proxy) -> None:
    rows, out = reviews(tmp_path / "rows.jsonl", 5), tmp_path / "out.jsonl"
    teacher = Teacher("m", base_url=proxy.url, prices=Prices(1.0, 2.0), max_tokens=20)
    once = Prices(1.0, 2.0).of(100, 10)
    most = teacher.most_cost(extraction().instruction, "Review 0: fine.")
    assert most > once
    options = AnnotateOptions(attempts=1, cost_cap=2 * once + most, workers=1)
    held = annotate(extraction(), rows, out, teacher, options=options)
    assert (held.written, held.left_out) == (3, 2)
    assert held.cost == pytest.approx(3 * once)
    assert annotate(extraction(), rows, out, teacher, options=options) == held
    assert proxy.calls == 3
    assert annotate(extraction(), rows, out, teacher, options=ONE).left_out == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", r"rows\.jsonl:2"), ("[]", "not an object"), ('{"text": "x"}', "field 'review' must be a text")],
)
def test_a_faulty_row_is_named_before_anything_is_asked(
    tmp_path: Path, proxy: Proxy, line: str, words: str
) -> None:
    rows = reviews(tmp_path / "rows.jsonl", 1)
    rows.write_text(rows.read_text() + line + "\n")
    with pytest.raises(InvalidInputError, match=words):
        annotate(extraction(), rows, tmp_path / "out.jsonl", Teacher("m", base_url=proxy.url))
    assert proxy.calls == 0


def test_the_rationale_is_asked_for_with_and_without_the_rating() -> None:
    shown, honest = rationale(show_rating=True), rationale(show_rating=False)
    assert "rating: 8" in shown.question(ROW)
    assert "8" not in honest.question(ROW).replace("1998", "")
    assert shown.read(ROW, "", "Calm suits.\nPredicted User Rating: 8")["rationale"] == "Calm suits."
    row = honest.read(ROW, "", "Calm suits.\n\nPredicted User Rating: 7.5")
    assert (row["rationale"], row["teacher_rating"], row["score"]) == ("Calm suits.", 7.5, "8")
    with pytest.raises(UnusableAnswerError, match="Predicted User Rating"):
        honest.read(ROW, "", "Calm suits.")
    with pytest.raises(InvalidInputError, match="missing: score"):
        shown.question({name: value for name, value in ROW.items() if name != "score"})


def test_a_profile_has_both_sides() -> None:
    task = profiles()
    row = task.read({"preferences": LISTS}, LISTS, f"Here it is:\n{LISTS}")
    assert row == {"instruction": task.instruction, "input": LISTS, "output": LISTS}
    with pytest.raises(UnusableAnswerError):
        task.read({"preferences": LISTS}, LISTS, "[Like]\n- calm\n")


def test_a_real_endpoint_behind_trouble(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="`transformers serve` needs fastapi and uvicorn")
    pytest.importorskip("uvicorn", reason="`transformers serve` needs fastapi and uvicorn")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = str(tiny_checkpoint("llama"))
    with serving(model) as endpoint:
        proxy = Proxy(endpoint)
        try:
            proxy.troubles = [429, "broken"]
            teacher = Teacher(model, base_url=proxy.url, max_tokens=8, prices=Prices(1.0, 1.0))
            rows, out = reviews(tmp_path / "rows.jsonl", 2), tmp_path / "out.jsonl"
            held = annotate(extraction(), rows, out, teacher, options=AnnotateOptions(attempts=2, workers=1))
        finally:
            proxy.close()
    # A random model writes no lists: each row is asked about twice, and what it wrote is kept.
    assert (held.written, held.quarantined) == (0, 2)
    assert proxy.calls == 5
    assert held.cost > 0
    assert all(
        row["answers"][-1]["error"].startswith("not a [Like] list") for row in lines(quarantine_of(out))
    )


class serving:  # noqa: N801  (used as a context)
    """`transformers serve` in a process of its own."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> str:
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
            port = free.server_port
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", self._model]
        command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(f"http://127.0.0.1:{port}/health"):
                return f"http://127.0.0.1:{port}"
            time.sleep(0.2)
        self._process.kill()
        raise AssertionError("the endpoint did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (our own server)
            return True
    except (urllib.error.URLError, OSError):
        return False
