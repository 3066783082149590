"""Builds: whole or not at all, small in memory, and what `from_pretrained` keeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_models
from exp3rt_trt.engines import devices, layout, staging
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.families import dimensions
from exp3rt_trt.engines.layout import layer_shapes
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable

# Builds, and stops half-way, where it can be killed.
HALF_A_BUILD = """
import sys, time
from pathlib import Path
from exp3rt_trt.engines.build import build_engine

def progress(tensor, written, total):
    if written > total / 2:
        print("half", flush=True)
        time.sleep(60)

build_engine(sys.argv[1], Path(sys.argv[2]), "bf16", progress=progress)
"""
# Builds, and says how much memory the process took at most. (ru_maxrss would count the one that started it.)
MEASURED_BUILD = """
import re, sys
from pathlib import Path
from exp3rt_trt.engines.build import build_engine

build_engine(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def left_behind(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]


def test_killed_build_leaves_the_older_engine(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    out = tmp_path / "engine"
    older = build_engine(tiny_checkpoint("llama"), out, "fp32")
    arguments = [sys.executable, "-c", HALF_A_BUILD, str(tiny_checkpoint("qwen3")), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "half\n"
        assert len(left_behind(out)) == 1
        assert Engine.open(out).manifest == older
        # A second build, while the first one runs, leaves the first one's folder alone.
        assert build_engine(tiny_checkpoint("llama"), out, "fp32") == older
        assert len(left_behind(out)) == 1
        build.send_signal(signal.SIGKILL)
    assert build.returncode == -signal.SIGKILL
    assert Engine.open(out).manifest == older
    assert len(left_behind(out)) == 1
    newer = build_engine(tiny_checkpoint("qwen3"), out, "bf16")
    assert left_behind(out) == []
    assert Engine.open(out).manifest == newer != older


@pytest.mark.parametrize("exchange", [True, False])
def test_failed_build_leaves_nothing(
    exchange: bool, tmp_path: Path, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    out = tmp_path / "deep" / "engine"
    with pytest.raises(BuildError, match=r"engine: cannot be written: .*No space left"):
        build_engine(tiny_checkpoint("llama"), out, progress=fail)
    assert list(out.parent.iterdir()) == []
    build_engine(tiny_checkpoint("llama"), out, "fp32")
    with pytest.raises(BuildError, match="No space left"):
        build_engine(tiny_checkpoint("llama"), out, progress=fail)
    assert Engine.open(out).manifest.dtype == "fp32"
    build_engine(tiny_checkpoint("llama"), out, "bf16")
    assert Engine.open(out).manifest.dtype == "bf16"
    assert [path.name for path in out.parent.iterdir()] == ["engine"]


def test_engine_is_restored_after_a_kill_between_two_renames(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    out = tmp_path / "engine"
    older = build_engine(tiny_checkpoint("llama"), out, "fp32")
    out.rename(tmp_path / ".engine.replaced")
    with pytest.raises(BuildError, match="config"), staging.staged(out):
        raise BuildError("config")
    assert Engine.open(out).manifest == older
    assert left_behind(out) == []


def test_only_engines_are_replaced(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(BuildError, match=r"home: holds files that are not of an engine, such as letter\.txt"):
        build_engine(tiny_checkpoint("llama"), out)
    with pytest.raises(BuildError, match=r"letter\.txt: exists and is not a directory"):
        build_engine(tiny_checkpoint("llama"), out / "letter.txt")
    assert (out / "letter.txt").read_text(encoding="utf-8") == "dear"
    (out / "letter.txt").unlink()
    build_engine(tiny_checkpoint("llama"), out)
    assert (out.stat().st_mode & 0o777) == 0o755


def test_bad_arguments_are_named(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(BuildError, match="dtype 'fp16' is not supported; supported: fp32, bf16"):
        build_engine(tiny_checkpoint("llama"), tmp_path / "engine", "fp16")
    with pytest.raises(
        BuildError, match=r"target 'cuda' is not known; known: auto, cpu, .*; devices found: CPU with"
    ):
        build_engine(tiny_checkpoint("llama"), tmp_path / "engine", target="cuda")
    with pytest.raises(BuildError, match="model 'no-such-model': no such directory or file"):
        build_engine("no-such-model", tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_said_at_once(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(BuildError, match=r"the engine takes \d+ MiB, 0 MiB are free"):
        build_engine(tiny_checkpoint("llama"), tmp_path / "engine")


def test_chunks_do_not_show(
    tmp_path: Path,
    tiny_checkpoint: Callable[[str], Path],
    tiny_engine: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Engine.open(tiny_engine("qwen2", "bf16")).manifest
    monkeypatch.setattr(layout, "CHUNK_BYTES", 1)  # one panel of 64 rows
    assert build_engine(tiny_checkpoint("qwen2"), tmp_path / "engine", "bf16").files == whole.files


def test_unwritable_cache_is_named(
    tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXP3RT_TRT_CACHE", "/proc/no/cache")
    with pytest.raises(BuildError, match=r"/proc/no/cache.*cannot be written.*EXP3RT_TRT_CACHE"):
        Engine.from_pretrained(tiny_checkpoint("llama"))


def test_source_is_recorded(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    reports: list[tuple[str, int, int]] = []
    source = tiny_checkpoint("llama")
    manifest = build_engine(source, tmp_path / "engine", progress=lambda *report: reports.append(report))
    assert manifest.source.model == str(source)
    assert set(manifest.source.sha256) >= {"config.json", "model.safetensors", "tokenizer.json"}
    size = manifest.files["weights.safetensors"].size
    assert reports[-1] == ("embed", size, size)
    written = [report[1] for report in reports]
    assert written == sorted(written)


def large_checkpoint(directory: Path, tokenizer_from: Path) -> int:
    """Writes a checkpoint whose file is one hole; returns the bytes of its largest tensor in float32."""
    config = {**tiny_models.COMMON, "model_type": "llama", "vocab_size": 64000, "hidden_size": 1024}
    config |= {
        "intermediate_size": 16384,
        "num_hidden_layers": 2,
        "head_dim": 64,
        "tie_word_embeddings": False,
    }
    dims = dimensions(config, "config.json")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("model.embed_tokens.weight", "lm_head.weight"), (dims.vocab_size, dims.hidden_size)
    )
    shapes["model.norm.weight"] = (dims.hidden_size,)
    for layer in range(dims.num_layers):
        own = layer_shapes(dims, qkv_bias=False, qk_norm=False)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    directory.mkdir()
    for path in tokenizer_from.glob("*oken*"):
        shutil.copy(path, directory)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return 4 * dims.vocab_size * dims.hidden_size


def test_memory_of_a_build_is_bounded(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    largest = large_checkpoint(tmp_path / "checkpoint", tiny_checkpoint("llama"))
    small = int(run(MEASURED_BUILD, tiny_checkpoint("llama"), tmp_path / "small", "bf16")) * 1024
    large = int(run(MEASURED_BUILD, tmp_path / "checkpoint", tmp_path / "large", "bf16")) * 1024
    weights = (tmp_path / "large" / "weights.safetensors").stat().st_size
    assert weights > 1.5 * largest
    assert large - small < 0.6 * largest
    shutil.rmtree(tmp_path / "large")


def test_from_pretrained_builds_once(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    first = Engine.from_pretrained(copied, "fp32")
    before = first.weights_path.stat()
    again = Engine.from_pretrained(str(copied), "fp32")
    assert again == first
    assert again.weights_path.stat().st_ino == before.st_ino
    assert Engine.from_pretrained(first.path) == first  # an engine directory, whatever dtype it has
    assert Engine.from_pretrained(copied, "bf16").path != first.path
    os.truncate(first.weights_path, 1000)  # a damaged engine of the cache is built anew
    assert Engine.from_pretrained(copied, "fp32") == first
    time.sleep(0.01)
    os.utime(copied / "model.safetensors")
    assert Engine.from_pretrained(copied, "fp32").path != first.path
    with pytest.raises(BuildError, match="no such directory or file"):
        Engine.from_pretrained(tmp_path / "nothing" / "at" / "all")


def test_devices_are_found() -> None:
    cpu = devices.cpu_device()
    assert cpu.cores == len(os.sched_getaffinity(0))
    assert str(cpu) == f"CPU with {cpu.cores} cores ({cpu.isa})"
    for gpu in devices.gpu_devices():
        assert gpu.memory_bytes > 2**30
        assert gpu.compute_capability in str(gpu)
