"""The job as a real process, which is killed at random moments."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from exp3rt_trt.profiles import ProfileStore

if TYPE_CHECKING:
    from pathlib import Path

NUM_REVIEWS = 160
BATCH = 32
CHILD = """
import os, sys
from pathlib import Path
from exp3rt_trt import Generator
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.profiles import ListWriter, ProfileBuilder, ProfileStore, Review
engine, store, asked, number = sys.argv[1:]
file = os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Counted(Generator):
    def generate(self, task, texts):
        def told(text):
            os.write(file, f"{task.opening.split()[0]} {text.split()[-1]}\\n".encode())
            return text
        return super().generate(task, map(told, texts))

reviews = [Review(f"u{n % 7}", f"i{n % 9}", f"boats number {n}", 4) for n in range(int(number))]
with Counted(Engine.open(engine), threads=1, kv_cache_mib=64) as generator:
    ProfileBuilder(ListWriter(generator), ProfileStore(Path(store))).add(reviews)
"""


def test_kill_loses_at_most_the_batch_in_flight_and_nothing_is_paid_for_twice(
    engine: Path, tmp_path: Path
) -> None:
    store, asked = tmp_path / "s.sqlite", tmp_path / "asked"
    command = [sys.executable, "-c", CHILD, str(engine), str(store), str(asked), str(NUM_REVIEWS)]
    rng = random.Random(4)  # noqa: S311  (no secret)
    kills = 0
    while True:
        before = len(asked.read_text().split("\n")) if asked.exists() else 0
        child = subprocess.Popen(command)
        while kills < 3 and child.poll() is None:  # once it is at work, at any moment
            if asked.exists() and len(asked.read_text().split("\n")) > before:
                time.sleep(rng.uniform(0, 0.3))
                child.kill()
            time.sleep(0.01)
        if child.wait(timeout=120) == 0:
            break
        kills += 1
    kept = ProfileStore(store)
    assert kills >= 1
    assert sum(kept.statuses().values()) == NUM_REVIEWS
    times = Counter(asked.read_text().split("\n")[:-1])
    firsts = [count for line, count in times.items() if line.startswith("[Like]")]
    assert len(firsts) == NUM_REVIEWS
    assert sum(firsts) - NUM_REVIEWS <= kills * BATCH  # only what was in flight is asked again
    assert kept.user_profile("u3") is not None
    again = asked.stat().st_size
    assert subprocess.run(command, check=True, timeout=120).returncode == 0
    assert asked.stat().st_size == again
