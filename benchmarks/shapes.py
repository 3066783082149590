"""Random checkpoints in the shapes of real models: their times mean something, their numbers nothing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import torch
from exp3rt_trt.engines.build import build_engine
from flops import Shape
from transformers import AutoModelForCausalLM, LlamaConfig

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {
    "12M": Shape(6, 192, 512, 6, 2, 32, 49152),
    "135M": Shape(30, 576, 1536, 9, 3, 64, 49152),
    "360M": Shape(32, 960, 2560, 15, 5, 64, 49152),
    "1.7B": Shape(24, 2048, 8192, 32, 32, 64, 49152),
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def make_engine(shape: Shape, tokenizer_of: Path, out: Path, dtype: str) -> Path:
    """Build an engine of random weights, with another engine's tokenizer, unless it is there.

    Args:
        shape: of the model; its vocabulary must hold the tokenizer's.
        tokenizer_of: engine directory.
        out: engine directory to write; a checkpoint lies beside it for that time.
        dtype: of the engine.

    Returns:
        The engine directory.
    """
    if (out / "manifest.json").exists():
        return out
    checkpoint = out.with_name(out.name + ".checkpoint")
    write_checkpoint(shape, tokenizer_of, checkpoint)
    try:
        build_engine(checkpoint, out, dtype)
    finally:
        shutil.rmtree(checkpoint)
    return out


def write_checkpoint(shape: Shape, tokenizer_of: Path, out: Path) -> None:
    """Write a Llama checkpoint of small random numbers in bf16."""
    end = json.loads((tokenizer_of / "manifest.json").read_text(encoding="utf-8"))["end_tokens"][0]
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (tokenizer_of / name).exists():
            shutil.copyfile(tokenizer_of / name, out / name)
