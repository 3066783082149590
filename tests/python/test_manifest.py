"""manifest.json and the opening of engines: what is damaged or unfit is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import RatingScale, Reranker, _core
from exp3rt_trt.engines import cache, engine
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.manifest import Manifest
from exp3rt_trt.engines.weights_file import read_header, sha256_of
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTS = "weights.safetensors"


@pytest.fixture
def copied(tmp_path: Path, tiny_engine: Callable[[str, str], Path]) -> Path:
    """An engine of the test's own."""
    return Path(shutil.copytree(tiny_engine("llama", "bf16"), tmp_path / "engine"))


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "manifest.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def flip_bit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_round_trip(copied: Path) -> None:
    path = copied / "manifest.json"
    manifest = Manifest.load(path)
    assert Manifest.from_json(manifest.to_json(), path) == manifest
    assert manifest.to_json() == path.read_text(encoding="utf-8")
    assert manifest.label_tokens["7"] != manifest.label_tokens["8"]


def test_a_reranker_rates_on_the_scale_that_its_engine_says(copied: Path) -> None:
    with Reranker.from_pretrained(copied) as reranker:
        assert reranker.scale == RatingScale.one_to_five()
    ten = RatingScale.one_to_ten()
    edit(copied, lambda raw: raw.update(scale=json.loads(ten.to_json())))
    path = copied / "manifest.json"
    manifest = Manifest.load(path)
    assert manifest.scale == ten
    assert Manifest.from_json(manifest.to_json(), path) == manifest
    with Reranker.from_pretrained(copied) as reranker:
        assert reranker.scale == ten
    with Reranker.from_pretrained(copied, scale=RatingScale.one_to_five()) as reranker:
        assert reranker.scale == RatingScale.one_to_five()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["format_version"], 2, r"format_version: expected 1, found 2; rebuild the engine"),
        (["format_version"], None, r"format_version: expected 1, found None; rebuild the engine"),
        (["model", "num_layers"], "3", r"model\.num_layers: expected an integer of at least 1, found '3'"),
        (["model", "num_layers"], 0, r"model\.num_layers: expected an integer of at least 1, found 0"),
        (["model", "num_kv_heads"], 3, r"model\.num_kv_heads: expected a divisor of num_heads \(4\)"),
        (["model", "head_dim"], 7, r"model\.head_dim: expected an even number"),
        (["model", "rms_norm_eps"], -1, r"model\.rms_norm_eps: expected a positive number"),
        (["model", "tie_word_embeddings"], 1, r"model\.tie_word_embeddings: expected true or false"),
        (["model", "rope_scaling"], "llama3", r"model\.rope_scaling: expected an object"),
        (["dtype"], "fp16", r"dtype: expected one of fp32, bf16, int8, found 'fp16'"),
        (["target"], "cpu", r"target: expected an object"),
        (["label_tokens", "3"], 301, r"label_tokens\.3: expected a token below vocab_size \(301\)"),
        (["end_tokens"], [1, -1], r"end_tokens: expected a list of tokens"),
        (["chat"], ["a", "b"], r"chat: expected null or three texts"),
        (["scale"], [1, 5], r"scale: must be an object of labels and values"),
        (["scale"], {"labels": "12", "values": [1, 2]}, r"scale: labels must be a list"),
        (["scale"], {"labels": ["1", "2"], "values": [1]}, r"scale: scale: 2 labels, but 1 values"),
        (
            ["files", "../weights.safetensors"],
            {},
            r"files: '\.\./weights\.safetensors' is not the name of a file",
        ),
        (["files", WEIGHTS, "size"], None, r"files\.weights\.safetensors\.size: expected an integer"),
    ],
)
def test_bad_field_is_named(copied: Path, keys: list[str], value: object, message: str) -> None:
    def change(raw: dict[str, Any]) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    edit(copied, change)
    with pytest.raises(EngineError, match=message) as raised:
        Engine.open(copied)
    assert str(copied / "manifest.json") in str(raised.value)


@pytest.mark.parametrize(
    "keys", [["model", "vocab_size"], ["label_tokens", "9"], ["files", WEIGHTS], ["source"]]
)
def test_missing_field_is_named(copied: Path, keys: list[str]) -> None:
    def change(raw: dict[str, Any]) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        del raw[keys[-1]]

    edit(copied, change)
    with pytest.raises(EngineError, match=rf"{keys[-1]}.*found nothing"):
        Engine.open(copied)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\udcff"])
def test_damaged_manifest_is_named(copied: Path, text: str) -> None:
    (copied / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EngineError, match=r"manifest\.json: "):
        Engine.open(copied)


def test_not_an_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such engine directory"):
        Engine.open(tmp_path / "nothing")
    with pytest.raises(EngineError, match=r"no manifest\.json: not an engine"):
        Engine.open(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "tokenizer_config.json"])
def test_truncated_file_is_named(copied: Path, name: str) -> None:
    size = (copied / name).stat().st_size
    os.truncate(copied / name, size - 3)
    with pytest.raises(EngineError, match=f"{name}: {size - 3} bytes, expected {size}"):
        Engine.open(copied)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_flipped_bit_is_found(copied: Path, name: str) -> None:
    Engine.open(copied)
    stat = (copied / name).stat()
    expected = sha256_of(copied / name)
    flip_bit(copied / name, stat.st_size // 2)
    os.utime(copied / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had happened
    found = sha256_of(copied / name)
    with pytest.raises(EngineError, match=f"{name}: altered: sha256 {found}, expected {expected}"):
        Engine.open(copied)


def test_missing_file_is_named(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match=r"tokenizer\.json: cannot be read"):
        Engine.open(copied)


def test_file_is_hashed_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(engine, "sha256_of", counting)
    Engine.open(copied)
    assert sorted(hashed) == ["tokenizer.json", "tokenizer_config.json", WEIGHTS]
    Engine.open(copied)
    assert len(hashed) == 3
    os.utime(copied / WEIGHTS)
    Engine.open(copied)
    assert hashed[3:] == [WEIGHTS]


def test_fresh_build_counts_as_verified(
    tiny_engine: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
    Engine.open(tiny_engine("llama", "bf16"))


def test_cache_that_cannot_be_written_is_no_error(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXP3RT_TRT_CACHE", "/proc/no/cache")
    assert str(cache.cache_dir()) == "/proc/no/cache"
    for _ in range(2):
        Engine.open(copied)


def test_engine_for_another_machine_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copied, lambda raw: raw["target"].update(isa="amx"))
    monkeypatch.setattr(_core, "cpu_isa", lambda: "avx2")
    with pytest.raises(EngineError, match="the engine needs amx, this machine has avx2; rebuild it with"):
        Engine.open(copied)
    edit(copied, lambda raw: raw["target"].update(isa="avx9"))
    with pytest.raises(EngineError, match=r"target\.isa: .*avx9"):
        Engine.open(copied)
    edit(copied, lambda raw: raw["target"].update(kind="cuda"))
    with pytest.raises(EngineError, match=r"target\.kind: this version runs engines of cpu, .* for 'cuda'"):
        Engine.open(copied)


def test_machine_without_avx2_is_refused(copied: Path) -> None:
    code = "import sys; from exp3rt_trt.engines.engine import Engine; Engine.open(sys.argv[1])"
    command = [sys.executable, "-c", code, str(copied)]
    run = subprocess.run(
        command, env={**os.environ, "EXP3RT_TRT_ISA": "none"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "EngineError" in run.stderr
    assert "the engine needs avx2, this machine has none; rebuild it with" in run.stderr


def test_tensors_lie_where_the_header_says(tiny_engine: Callable[[str, str], Path]) -> None:
    opened = Engine.open(tiny_engine("qwen2", "bf16"))
    shapes = {tensor.name: (tensor.dtype, tensor.shape) for tensor in opened.tensors}
    assert shapes["layers.1.qkv"] == ("BF16", (2, 64, 64))
    assert shapes["layers.0.down"] == ("BF16", (1, 192, 64))  # 176 rounded up to a multiple of 32
    assert shapes["lm_head"] == ("BF16", (5, 64, 64))
    assert shapes["embed"] == ("BF16", (301, 64))
    assert shapes["layers.0.qkv_bias"] == ("F32", (128,))
    assert shapes["rope.inv_freq"] == ("F32", (8,))
    packed = [tensor for tensor in opened.tensors if len(tensor.shape) == 3]
    assert all(tensor.offset % 64 == 0 for tensor in packed)
    assert opened.tensors == tuple(read_header(opened.weights_path))
    assert len(opened.core_tensors()) == len(opened.tensors)
