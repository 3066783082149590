"""Builds for GPUs: what is run and written, with doubles of TensorRT-LLM and trtllm-build."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import Reranker, _core
from exp3rt_trt.engines import cache, devices, recipes
from exp3rt_trt.engines.build import build_engine, plan_build
from exp3rt_trt.engines.devices import GpuDevice
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.manifest import Manifest
from exp3rt_trt.engines.recipes import load_recipe
from exp3rt_trt.engines.targets import LlmApiTarget, TensorRtTarget
from exp3rt_trt.engines.trtllm import build as gpu_build
from exp3rt_trt.engines.trtllm import commands, versions
from exp3rt_trt.errors import BuildError, EngineError
from rank_cases import ITEMS, OPTIONS, USER, ratings, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOUBLES = Path(__file__).parent / "doubles"
H100 = GpuDevice("NVIDIA H100 80GB HBM3", "9.0", 85520809984, driver="580.65.06", index=3, mig=False)
H200 = GpuDevice("NVIDIA H200", "9.0", 150754820096, driver="580.65.06", index=0, mig=False)
A100 = GpuDevice("NVIDIA A100-SXM4-80GB", "8.0", 85899345920, driver="580.65.06", index=0, mig=False)
ENGINE_FILES = ["build.log", "config.json", "rank0.engine", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_devices", list)


@pytest.fixture
def with_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 and TensorRT-LLM 1.2.1, both doubles."""
    monkeypatch.setattr(devices, "gpu_devices", lambda: [H100])
    monkeypatch.syspath_prepend(str(DOUBLES / "engines"))
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES / "engines"), prepend=":")
    monkeypatch.setenv("PATH", str(DOUBLES / "bin"), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(versions, "cuda_version", lambda: "13.0")


@pytest.fixture
def with_llm_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 and TensorRT-LLM 1.3.0, both doubles."""
    monkeypatch.setattr(devices, "gpu_devices", lambda: [H100])
    monkeypatch.syspath_prepend(str(DOUBLES / "llm_api"))
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES / "llm_api"), prepend=":")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Prompts to calibrate on: twelve texts, and a user with eight candidates."""
    path = tmp_path / "prompts.jsonl"
    lines: list[dict[str, Any]] = [{"text": f"A prompt about film {n}."} for n in range(12)]
    lines.append({"prefix": "User. ", "candidates": [{"suffix": f"Film {n}."} for n in range(8)]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def build(tmp_path: Path, texts: Path, tiny_checkpoint: Callable[[str], Path]) -> Callable[..., Manifest]:
    def run(**changes: Any) -> Manifest:
        given = {"target": "auto", "calibration": texts, **changes}
        return build_engine(tiny_checkpoint("llama"), tmp_path / "prompts-vila" / "engine", **given)

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where `build` builds; its name holds words that TensorRT-LLM would take for kinds of models."""
    return tmp_path / "prompts-vila" / "engine"


@pytest.mark.usefixtures("with_engines")
def test_an_engine_directory(build: Callable[..., Manifest], out: Path, texts: Path) -> None:
    manifest = build()
    assert sorted(manifest.files) == ENGINE_FILES
    assert sorted(path.name for path in out.iterdir()) == sorted([*ENGINE_FILES, "manifest.json"])
    assert sorted(path.name for path in out.parent.iterdir()) == [".engine.lock", "engine"]
    target = manifest.target
    assert isinstance(target, TensorRtTarget)
    assert (target.recipe, target.gpu, target.sm) == ("h100", H100.name, "9.0")
    assert (target.tensorrt_llm, target.tensorrt) == ("1.2.1", "10.14.1.48")
    assert (target.driver, target.cuda) == ("580.65.06", "13.0")
    assert (target.quantization, target.kv_dtype) == ("fp8", "fp8")
    assert manifest.model.max_context == 2048  # of the model; the recipe's 4096 are more
    assert target.flags == commands.build_flags(replace(load_recipe("h100"), max_seq_len=2048))
    assert manifest.source.sha256.keys() >= {texts.name, "config.json", "model.safetensors"}
    made = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert made["checkpoint"] == {
        "dtype": "bfloat16",
        "model_dir": "student",
        "qformat": "fp8",
        "kv_cache_dtype": "fp8",
        "texts": 20,
    }
    assert made["build"] == {
        **target.flags,
        "checkpoint_dir": "checkpoint",
        "output_dir": "engine",
        "log_level": "info",
    }
    log = (out / "build.log").read_text(encoding="utf-8")
    assert log.count("$ ") == 2
    assert "[TRT-LLM] building" in log
    code = "from exp3rt_trt.cli.app import main; main()"
    shown = subprocess.run([sys.executable, "-c", code, "inspect", str(out)], capture_output=True, check=True)
    assert b"NVIDIA H100 80GB HBM3 (SM 9.0) by recipe h100" in b" ".join(shown.stdout.split())
    opened = Engine.open(out)
    assert opened.manifest == manifest == Manifest.load(out / "manifest.json")
    assert opened.tensors == ()
    with pytest.raises(EngineError, match=r"built without TensorRT-LLM's headers; docs/tensorrt-llm\.md"):
        Reranker(opened)


@pytest.mark.usefixtures("with_engines")
def test_an_unquantized_engine_needs_no_texts(
    build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(load_recipe("h100"), quantization="none", kv_dtype="bf16", gemm_plugin="auto")
    monkeypatch.setattr(recipes, "recipe_for", lambda _: (plain, None))
    build(calibration=None)
    made = json.loads((out / "config.json").read_text(encoding="utf-8"))["checkpoint"]
    assert (made["dtype"], made["model_dir"]) == ("bfloat16", "student")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(made["files"])


@pytest.mark.usefixtures("with_engines")
def test_the_context_is_no_longer_than_the_recipes(
    build: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(load_recipe("h100"), max_seq_len=512)
    monkeypatch.setattr(recipes, "recipe_for", lambda _: (short, None))
    assert build().model.max_context == 512


@pytest.mark.usefixtures("with_engines")
def test_a_failed_build_says_the_logs_last_lines_and_leaves_the_older_engine(
    build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = build()
    monkeypatch.setenv("DOUBLE_BUILD_FAILS", "[TRT] out of memory")
    log = out.with_name("engine.build.log")
    with pytest.raises(BuildError, match="trtllm-build: failed with exit status 1; the log is ") as told:
        build()
    assert str(log) in str(told.value)
    assert str(told.value).endswith("line 39\n[TRT] out of memory")
    assert "line 12\n" not in str(told.value)
    assert "line 12\n" in log.read_text(encoding="utf-8")
    assert Engine.open(out).manifest == older
    assert sorted(path.name for path in out.parent.iterdir()) == [
        ".engine.lock",
        "engine",
        "engine.build.log",
    ]
    monkeypatch.delenv("DOUBLE_BUILD_FAILS")
    monkeypatch.setenv("DOUBLE_BUILD_WRITES_NOTHING", "1")
    with pytest.raises(BuildError, match=r"(?s)trtllm-build: wrote no rank0\.engine; the log is .*building"):
        build()
    monkeypatch.delenv("DOUBLE_BUILD_WRITES_NOTHING")
    assert build().files["rank0.engine"] == older.files["rank0.engine"]
    assert not log.exists()


@pytest.mark.usefixtures("with_engines")
def test_of_two_builds_one_builds_and_the_other_waits(
    build: Callable[..., Manifest], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    monkeypatch.setenv("DOUBLE_BUILD_WAITS_FOR", str(gate))
    monkeypatch.setenv("DOUBLE_BUILD_COUNT", str(count))
    came: list[Path] = []

    @contextmanager
    def exclusive(path: Path, advice: str) -> Iterator[None]:
        came.append(path)
        with cache.exclusive(path, advice):
            yield

    monkeypatch.setattr(gpu_build, "exclusive", exclusive)
    made: list[Manifest] = []
    threads = [threading.Thread(target=lambda: made.append(build())) for _ in range(3)]
    threads[0].start()
    while not count.exists():
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
    while len(came) < 3:
        time.sleep(0.01)
    gate.touch()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert made[0] == made[1] == made[2] == Engine.open(out).manifest
    assert count.read_text(encoding="utf-8") == "3 1\n"  # one call, on the GPU with index 3, offline
    build()
    assert len(count.read_text(encoding="utf-8").splitlines()) == 2  # whoever asks again, gets a new one


@pytest.mark.usefixtures("with_engines")
@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            {"gpus": [A100]},
            r"expected NVIDIA H100 80GB HBM3 \(SM 9\.0\), here is NVIDIA A100-SXM4-80GB \(SM 8\.0, 80 GiB\)",
        ),
        ({"gpus": [H200]}, r"expected NVIDIA H100 80GB HBM3 \(SM 9\.0\), here is NVIDIA H200"),
        ({"gpus": []}, r"expected NVIDIA H100 80GB HBM3 \(SM 9\.0\), here is no NVIDIA GPU"),
        ({"tensorrt_llm": "1.2.2"}, r"expected TensorRT-LLM 1\.2\.1, here is 1\.2\.2"),
        ({"tensorrt": "10.15.0"}, r"expected TensorRT 10\.14\.1\.48, here is 10\.15\.0"),
    ],
)
def test_an_engine_for_another_machine_is_refused(
    here: dict[str, Any],
    message: str,
    build: Callable[..., Manifest],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = build().source.model
    if "gpus" in here:
        monkeypatch.setattr(devices, "gpu_devices", lambda: here["gpus"])
    for name in ("tensorrt", "tensorrt_llm"):
        if name in here:
            monkeypatch.setattr(versions, f"{name}_version", lambda name=name: here[name])
    words = "--target auto --calibration FILE.jsonl"
    command = f"exp3rt-trt build --model {source} {words} --out {out}"
    with pytest.raises(EngineError, match=message + r".*; rebuild it here with `exp3rt-trt") as told:
        Engine.open(out)
    assert command in str(told.value)


@pytest.mark.usefixtures("with_engines")
def test_a_tensorrt_engine_goes_to_the_executor_in_cpp(
    build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    given: list[dict[str, Any]] = []

    class Refusing:
        def __init__(self, engine_dir: str, **options: Any) -> None:
            given.append({"engine_dir": engine_dir, **options})
            raise RuntimeError("this is a double")

    monkeypatch.setattr(_core, "built_with_tensorrt_llm", True, raising=False)
    monkeypatch.setattr(_core, "TrtLlmExecutor", Refusing, raising=False)
    with pytest.raises(EngineError, match="engine: this is a double"):
        Reranker(Engine.open(out))
    assert given == [
        {
            "engine_dir": str(out),
            "vocab_size": 301,
            "max_context": 2048,
            "tokens_per_block": 32,
            "max_batch_size": 256,
            "max_num_tokens": 8192,
            "kv_memory_fraction": 0.9,
            "device": 3,
        }
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(EngineError):
        Reranker(Engine.open(out))
    assert given[1]["device"] == 0


@pytest.mark.usefixtures("with_engines")
def test_missing_tensorrt_llm_at_loading(
    build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    monkeypatch.setattr(versions, "tensorrt_llm_version", lambda: None)
    with pytest.raises(EngineError, match=r'here is none; install .*`pip install "tensorrt-llm==1\.2\.1"`'):
        Engine.open(out)


@pytest.mark.usefixtures("with_engines")
@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["target", "sm"], 9.0, r"target\.sm: expected text, found 9\.0"),
        (["target", "flags"], None, r"target\.flags: expected an object"),
        (["target", "flags", "gemm_plugin"], 8, r"target\.flags\.gemm_plugin: expected text, found 8"),
        (["target", "flags", "max_batch_size"], "x", r"flags\.max_batch_size: expected a number as text"),
        (["target", "kv_memory_fraction"], 2, r"target\.kv_memory_fraction: expected a number of at most 1"),
        (["files", "rank0.engine"], None, r"files\.rank0\.engine: expected an object"),
    ],
)
def test_damaged_manifests(
    keys: list[str], value: object, message: str, build: Callable[..., Manifest], out: Path
) -> None:
    build()
    path = out / "manifest.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(EngineError, match=message):
        Engine.open(out)


@pytest.mark.usefixtures("with_engines")
def test_an_altered_plan_is_refused(build: Callable[..., Manifest], out: Path) -> None:
    build()
    (out / "rank0.engine").write_bytes(b"A plan that no GPU runs")
    with pytest.raises(EngineError, match=r"rank0\.engine: altered: sha256"):
        Engine.open(out)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("version", [None, "1.2.0", "1.2.0rc3", "1.1.0"])
def test_what_is_missing_for_a_build_is_said_at_once(
    version: str | None, build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "tensorrt_llm_version", lambda: version)
    with pytest.raises(BuildError) as told:
        build(target="h100", calibration=None)
    for words in (
        f"{version} is installed" if version else "is not installed",
        '`pip install "tensorrt-llm==1.2.1"`',
        "a GPU of SM 9.0 (H100) is needed, here is no NVIDIA GPU",
        "--calibration FILE.jsonl",
    ):
        assert words in str(told.value)
    assert not out.exists()


def test_unknown_targets_and_types(build: Callable[..., Manifest], no_gpu: None) -> None:
    assert no_gpu is None
    with pytest.raises(BuildError, match=r"target 'h1000' is not known; known: auto, cpu, .*h100"):
        build(target="h1000")
    with pytest.raises(BuildError, match="dtype int8: for a GPU, the recipe decides, which says bf16"):
        build(target="h100", dtype="int8")
    assert build(target="auto", dtype="fp32").target.kind == "cpu"


@pytest.mark.usefixtures("with_engines")
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": "one"}], r"prompts\.jsonl: 1 calibration texts; at least 16 are needed"),
        ([{"txt": "one"}], r'prompts\.jsonl:1: expected \{"text": \.\.\.\} or'),
        ([{"prefix": "p", "candidates": [{"suffix": 1}]}], r"prompts\.jsonl:1: expected"),
    ],
)
def test_bad_calibration_texts(
    lines: list[dict[str, Any]], message: str, build: Callable[..., Manifest], texts: Path, out: Path
) -> None:
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(BuildError, match=message):
        build()
    assert not out.exists()


@pytest.mark.usefixtures("no_gpu")
def test_the_plan_runs_nothing_and_names_every_command_and_file(tmp_path: Path) -> None:
    out = tmp_path / "engine"
    text = plan_build("no/such-model", out, target="h100", adapter="adapter")
    assert "read no/such-model + adapter" in text
    recipe = load_recipe("h100")
    for command in (commands.convert_command(recipe), commands.build_command(recipe)):
        assert " ".join(command.arguments) in text
    assert "write rank0.engine, config.json, tokenizer.json, tokenizer_config.json, build.log" in text
    assert text.count("missing here: ") == 3
    on_cpu = plan_build("no/such-model", out, "int8")
    assert "for the CPU, int8" in on_cpu
    assert "missing" not in on_cpu
    auto = plan_build("no/such-model", out, target="auto")
    assert auto.startswith("note: no NVIDIA GPU is here: target auto is CPU with")
    assert "weights.safetensors" in auto
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("with_engines")
def test_a_recipe_for_another_gpu_of_the_same_sm_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpu_devices", lambda: [H200])
    text = plan_build("model", tmp_path / "engine", target="h100", calibration=tmp_path / "texts.jsonl")
    assert "note: no GPU that recipe h100 names is here; the engine will be for NVIDIA H200" in text
    assert "missing" not in text


def test_the_command_line_prints_the_plan(tmp_path: Path) -> None:
    code = "from exp3rt_trt.cli.app import main; main()"
    words = ["build", "--model", "x/y", "--out", str(tmp_path / "engine"), "--target", "l4", "--dry-run"]
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "trtllm-build --checkpoint_dir checkpoint" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("with_engines")
def test_code_that_a_checkpoint_names_is_left_out(
    tmp_path: Path, texts: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    from exp3rt_trt.engines.sources import open_checkpoint
    from exp3rt_trt.engines.trtllm.student import write_student

    assert texts.exists()
    model = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    del config["architectures"]
    config["auto_map"] = {"AutoConfig": "someone/else--code.Config"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_student(open_checkpoint(model), tmp_path / "student")
    written = json.loads((tmp_path / "student" / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" not in written
    assert written["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.usefixtures("with_llm_api")
def test_for_the_llm_api_an_engine_is_a_checkpoint_and_ranks(
    build: Callable[..., Manifest], out: Path, tiny_engine: Callable[..., Path]
) -> None:
    manifest = build(calibration=None)
    target = manifest.target
    assert isinstance(target, LlmApiTarget)
    assert (target.recipe, target.tensorrt_llm, target.max_seq_len) == ("h100", "1.3.0", 2048)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest.files)
    assert Manifest.load(out / "manifest.json") == manifest
    with Reranker.from_pretrained(out, **OPTIONS) as reranker:
        assert reranker.isa == "tensorrt_llm 1.3.0"
        scored = reranker.rank(USER, ITEMS)
        assert ratings(reranker.rank(USER, ITEMS[::-1])) == ratings(scored)
        assert len(set(ratings(scored).values())) == len(ITEMS)
        reasoned = reranker.rank(USER, ITEMS, mode="reason")
        assert all(text for text in reasons(reasoned).values())
        assert [item.rank for item in reasoned] == list(range(1, len(ITEMS) + 1))
        adaptive = reranker.rank(USER, ITEMS, mode="adaptive", top_k=2)
        assert len(adaptive) == 2
        stats = reranker.stats()
        assert stats.prompt_tokens_reused > stats.prompt_tokens_computed / 4
    with Reranker.from_pretrained(tiny_engine("llama", "fp32"), **OPTIONS) as on_cpu:
        same_form = on_cpu.rank(USER, ITEMS)
        assert {item.item_id for item in same_form} == {item.item_id for item in scored}
    assert build(calibration=None) == manifest  # replaced in its place


@pytest.mark.usefixtures("with_llm_api")
def test_the_plan_for_the_llm_api_says_what_is_different(tmp_path: Path) -> None:
    text = plan_build("model", tmp_path / "engine", target="h100")
    assert "note: TensorRT-LLM 1.3.0 has no TensorRT engines: this one is a checkpoint" in text
    assert "note: weights and KV cache will be bf16; the recipe's fp8 weights and fp8 KV cache" in text
    assert "model.safetensors, config.json, tokenizer.json" in text
    assert "missing" not in text


@pytest.mark.usefixtures("with_engines")
def test_a_folder_that_cannot_be_written(tiny_checkpoint: Callable[[str], Path], texts: Path) -> None:
    with pytest.raises(BuildError, match=r"/proc/nowhere: cannot be written: .*") as told:
        build_engine(tiny_checkpoint("llama"), Path("/proc/nowhere/engine"), target="auto", calibration=texts)
    assert "CACHE" not in str(told.value)


@pytest.mark.usefixtures("with_llm_api")
def test_an_llm_api_engine_needs_a_new_tensorrt_llm_and_a_gpu(
    build: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(target="h100")
    with monkeypatch.context() as patch:
        patch.setattr(devices, "gpu_devices", list)
        with pytest.raises(EngineError, match="expected an NVIDIA GPU, here is none"):
            Engine.open(out)
    monkeypatch.setattr(versions, "tensorrt_llm_version", lambda: "1.2.1")
    with pytest.raises(EngineError, match=r'1\.3 or newer .*here is 1\.2\.1; .*"tensorrt-llm>=1\.3"`'):
        Engine.open(out)
    path = out / "manifest.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["target"]["max_seq_len"] = 0
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(EngineError, match=r"target\.max_seq_len: expected an integer of at least 1, found 0"):
        Engine.open(out)
