"""Checkpoints of every form: shards, types, damage, pickles, the hub."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt.engines import sources
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.checkpoints import DirectoryCheckpoint
from exp3rt_trt.engines.weights_file import PlannedTensor, read_header, write_weights
from exp3rt_trt.errors import BuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> Path:
    """A checkpoint of the test's own."""
    return Path(shutil.copytree(tiny_checkpoint("llama_untied"), tmp_path / "checkpoint"))


def tensors_of(directory: Path) -> dict[str, NDArray[np.float32]]:
    checkpoint = DirectoryCheckpoint(directory)
    return {name: checkpoint.tensor(name) for name in checkpoint.shapes}


def rewrite(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the tensors of a checkpoint in one file."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / SINGLE)
    change(tensors)
    save_file(tensors, directory / SINGLE)


def shard(directory: Path) -> None:
    """Splits a checkpoint into shards, as save_pretrained does for large ones."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    (directory / SINGLE).unlink()
    model.save_pretrained(directory, max_shard_size="200KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2


def test_shards_give_the_same_engine(
    checkpoint: Path, tmp_path: Path, tiny_engine: Callable[[str, str], Path]
) -> None:
    shard(checkpoint)
    manifest = build_engine(checkpoint, tmp_path / "engine", "bf16")
    assert manifest.files == build_engine_files(tiny_engine("llama_untied", "bf16"))
    assert sum(name.endswith(".safetensors") for name in manifest.source.sha256) > 2


def build_engine_files(directory: Path) -> object:
    from exp3rt_trt.engines.engine import Engine

    return Engine.open(directory).manifest.files


def test_missing_shard_and_tensor_are_named(checkpoint: Path) -> None:
    shard(checkpoint)
    index = json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))
    index["weight_map"]["model.extra.weight"] = sorted(set(index["weight_map"].values()))[0]
    (checkpoint / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(BuildError, match=r"model-00001.*: tensor model\.extra\.weight is missing"):
        DirectoryCheckpoint(checkpoint)
    next(checkpoint.glob("model-00002-*")).unlink()
    with pytest.raises(BuildError, match=r"model-00002-.*missing"):
        DirectoryCheckpoint(checkpoint)


def test_index_may_not_point_elsewhere(checkpoint: Path) -> None:
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {"x": "../x.safetensors"}}), encoding="utf-8")
    with pytest.raises(BuildError, match=r"'\.\./x\.safetensors' is not the name of a safetensors file"):
        DirectoryCheckpoint(checkpoint)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_widened(checkpoint: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    expected = {
        name: value.to(getattr(torch, dtype)) for name, value in load_file(checkpoint / SINGLE).items()
    }
    save_file(expected, checkpoint / SINGLE)
    found = tensors_of(checkpoint)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[name].float().numpy())


def test_rows_are_a_part_of_the_tensor(checkpoint: Path) -> None:
    opened = DirectoryCheckpoint(checkpoint)
    name = "model.embed_tokens.weight"
    np.testing.assert_array_equal(opened.rows(name, 17, 40), opened.tensor(name)[17:40])


def test_unsupported_type_is_named(checkpoint: Path, tmp_path: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({"model.norm.weight": np.zeros(64)}))
    with pytest.raises(BuildError, match=r"model\.norm\.weight: type F64 is not supported"):
        build_engine(checkpoint, tmp_path / "engine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"model.layers.0.self_attn.o_proj.bias": np.zeros(64, np.float32)}),
         r"unexpected tensor model\.layers\.0\.self_attn\.o_proj\.bias"),
        (lambda t: t.update({f"model.layers.0.mlp.experts.{i}": np.zeros(1, np.float32) for i in range(9)}),
         r"unexpected tensors model\.layers\.0\.mlp\.experts\.0, .* and 4 more"),
        (lambda t: t.pop("model.layers.2.mlp.down_proj.weight"),
         r"missing tensor model\.layers\.2\.mlp\.down_proj\.weight"),
        (lambda t: t.pop("lm_head.weight"), r"missing tensor lm_head\.weight"),
        (lambda t: t.update({"model.norm.weight": np.zeros(63, np.float32)}),
         r"tensor model\.norm\.weight is \[63\], by the config \[64\]"),
    ],
)  # fmt: skip
def test_other_tensors_than_the_config_says(
    checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    rewrite(checkpoint, change)
    with pytest.raises(BuildError, match=message):
        build_engine(checkpoint, tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


def test_rotary_buffers_are_ignored(checkpoint: Path, tmp_path: Path) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
    rewrite(checkpoint, lambda tensors: tensors.update(buffer))
    build_engine(checkpoint, tmp_path / "engine")


def test_tied_checkpoint_may_hold_either_table(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], tiny_engine: Callable[[str, str], Path]
) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    expected = build_engine_files(tiny_engine("llama", "bf16"))
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    rewrite(copied, rename)
    assert build_engine(copied, tmp_path / "engine").files == expected


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickle_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / SINGLE).rename(checkpoint / name)
    with pytest.raises(BuildError, match=f"{name}: pickled weights are never loaded"):
        DirectoryCheckpoint(checkpoint)
    with pytest.raises(BuildError, match=f"{name}: pickled weights are never loaded"):
        sources.open_checkpoint(checkpoint / name)


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="neither an engine"):
        DirectoryCheckpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BuildError, match="a LoRA adapter alone; give it"):
        DirectoryCheckpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BuildError, match=r"model\.safetensors: missing"):
        DirectoryCheckpoint(tmp_path)
    with pytest.raises(BuildError, match="not a checkpoint; needed"):
        sources.open_checkpoint(tmp_path / "config.json")


@pytest.mark.parametrize("cut", [1, 1000, -1])
def test_truncated_checkpoint_is_named(checkpoint: Path, cut: int) -> None:
    path = checkpoint / SINGLE
    os.truncate(path, path.stat().st_size - cut if cut > 0 else 5)
    with pytest.raises(BuildError, match=r"model\.safetensors: .*truncated"):
        DirectoryCheckpoint(checkpoint)


def entry(dtype: str, shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, "tensor b overlaps a"),
        ({"a": entry("F32", [2], 0, 12)}, r"tensor a: F32 \[2\] takes 8 bytes, data_offsets give it 12"),
        ({"a": entry("F33", [2], 0, 8)}, "tensor a: unknown dtype 'F33'"),
        ({"a": entry("F32", [-2], 0, 8)}, r"tensor a: bad shape \[-2\]"),
        ({"a": entry("F32", [2], 8, 0)}, r"tensor a: bad data_offsets \[8, 0\]"),
        ({"a": 3}, "tensor a: unknown dtype None"),
        ({"a": entry("F32", [4], 0, 16)}, "tensor a ends at byte .*, the file has .* bytes: it is truncated"),
        ({"a": entry("F32", [2], 0, 8)}, "4 bytes follow the last tensor"),
        ([1], "the header is not a JSON object"),
    ],
)
def test_bad_header_is_named(tmp_path: Path, header: object, message: str) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
    with pytest.raises(EngineError, match=rf"w\.safetensors: {message}"):
        read_header(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\xff" * 7 + b"\x7f" + b"{}", struct.pack("<Q", 2) + b"{]"]
)
def test_header_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"w\.safetensors: the header"):
        read_header(path)


def test_written_file_is_read_by_the_library(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    matrix = np.arange(70, dtype=np.float32).reshape(7, 10)
    vector = np.arange(3, dtype=np.float32)
    plan = [
        PlannedTensor("matrix", "F32", (7, 10), lambda: (matrix[i : i + 2] for i in range(0, 7, 2))),
        PlannedTensor("vector", "F32", (3,), lambda: [vector]),
    ]
    path = tmp_path / "w.safetensors"
    seen: list[tuple[str, int, int]] = []
    record = write_weights(path, plan, lambda *report: seen.append(report))
    loaded = load_file(path)
    np.testing.assert_array_equal(loaded["matrix"], matrix)
    np.testing.assert_array_equal(loaded["vector"], vector)
    assert record.size == path.stat().st_size
    assert [tensor.name for tensor in read_header(path)] == ["matrix", "vector"]
    assert read_header(path)[0].offset % 64 == 0
    assert seen[-1] == ("vector", record.size, record.size)
    assert len(seen) == 5
    short = PlannedTensor("matrix", "F32", (7, 10), lambda: [matrix[:6]])
    with pytest.raises(BuildError, match="tensor matrix: -40 bytes against its size"):
        write_weights(path, [short])


def test_names_are_resolved(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert sources.resolve(str(checkpoint)) == checkpoint
    assert sources.resolve("someone/some-model") == checkpoint
    ((name, options),) = asked
    assert name == "someone/some-model"
    assert not any(".bin" in pattern or pattern in ("*", "*.*") for pattern in options["allow_patterns"])
    with pytest.raises(BuildError, match=r"no such directory or file.*base students: smollm2-135m-instruct"):
        sources.resolve("smollm3")


def test_unreachable_hub_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(BuildError, match=r"'someone/some-model': not a local path, and the hub .*: offline"):
        sources.resolve("someone/some-model")


def test_fingerprint_follows_the_files(checkpoint: Path) -> None:
    before = sources.fingerprint(checkpoint)
    assert sources.fingerprint(checkpoint) == before
    os.utime(checkpoint / SINGLE)
    assert sources.fingerprint(checkpoint) != before
