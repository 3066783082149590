"""GGUF files as checkpoints: dequantized row by row, names and conventions turned back to Hugging Face's.

The format and its keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from exp3rt_trt.engines.checkpoints import Checkpoint, read_bytes
from exp3rt_trt.engines.gguf_file import GgufTensor, read_gguf
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # Mistral and SmolLM2 are "llama" here
INTERLEAVED = re.compile(r"\.[qk]_proj\.")
ROPE_FACTORS = "rope_freqs.weight"
EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GgufCheckpoint(Checkpoint):
    """A model in one GGUF file, of architecture llama, qwen2 or qwen3, quantized or not.

    Args:
        path: The file.

    Raises:
        BuildError: The file is damaged, split, or of an architecture that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.config_path = path
        self.files = [path]
        self._file = read_gguf(path)
        self._architecture = self._checked_architecture()
        self._tensors = {hugging_face_name(name): tensor for name, tensor in self._file.tensors.items()}
        self._rope_factors = self._tensors.pop(ROPE_FACTORS, None)
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.config = self._hugging_face_config()
        ids = [self.metadata(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
        self.eos_tokens = [token for token in ids if token is not None]

    def metadata(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        """Reads a value of the file's metadata: a number, a truth value, a text, or a list of them."""
        return self._file.metadata.get(key, default)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Reads some rows of a tensor; see `Checkpoint.rows`."""
        tensor = self._tensors[name]
        if self._architecture != "llama" or not INTERLEAVED.search(name):
            return self._dequantized(name, tensor, start, stop)
        rows = interleaved_rows(self.config["head_dim"], start, stop)
        first = int(rows.min())
        return self._dequantized(name, tensor, first, int(rows.max()) + 1)[rows - first]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Makes the tokenizer from the metadata."""
        from exp3rt_trt.engines.gguf_tokenizer import make_tokenizer  # noqa: PLC0415  (imports transformers)

        return make_tokenizer(self.metadata, str(self.path))

    @property
    def tokenizer_json(self) -> str | None:
        """None: it is made from the metadata."""
        return None

    def _dequantized(self, name: str, tensor: GgufTensor, start: int, stop: int) -> NDArray[np.float32]:
        from gguf.quants import dequantize  # noqa: PLC0415

        count = stop - start
        raw = read_bytes(self.path, tensor.offset + start * tensor.row_bytes, count * tensor.row_bytes)
        try:
            values = dequantize(raw.reshape(count, tensor.row_bytes), tensor.kind)
        except NotImplementedError as error:
            kind = tensor.kind.name
            raise BuildError(f"{self.path}: tensor {name}: quantization {kind} is not supported") from error
        return np.ascontiguousarray(values, dtype=np.float32).reshape(count, *tensor.shape[1:])

    def _setting(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        return self.metadata(f"{self._architecture}.{name}", default)

    def _checked_architecture(self) -> str:
        name = self.metadata("general.architecture")
        if name not in ARCHITECTURES:
            supported = ", ".join(ARCHITECTURES)
            raise BuildError(f"{self.path}: architecture {name!r} is not supported; supported: {supported}")
        if self.metadata("split.count", 1) > 1:
            raise BuildError(
                f"{self.path}: one of several split files; merge them first (gguf-split --merge)"
            )
        if self.metadata(f"{name}.expert_count", 0):
            raise BuildError(f"{self.path}: {name}.expert_count: mixtures of experts are not supported")
        return str(name)

    def _hugging_face_config(self) -> dict[str, Any]:
        longest = self._setting("context_length")
        window = self._setting("attention.sliding_window")
        heads, hidden = self._setting("attention.head_count"), self._setting("embedding_length")
        head_dim = self._setting("attention.key_length") or (
            hidden // heads if type(heads) is type(hidden) is int and heads else None
        )
        for name in ("attention.value_length", "rope.dimension_count"):
            if self._setting(name, head_dim) != head_dim:
                raise BuildError(
                    f"{self.path}: {name} {self._setting(name)} must be the head's size {head_dim}"
                )
        return {
            "model_type": self._architecture,
            "vocab_size": self.shapes.get(EMBEDDING, (None,))[0],
            "hidden_size": hidden,
            "intermediate_size": self._setting("feed_forward_length"),
            "num_hidden_layers": self._setting("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._setting("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "rms_norm_eps": self._setting("attention.layer_norm_rms_epsilon"),
            "max_position_embeddings": min(longest, window) if window and longest else longest,
            "rope_theta": self._setting("rope.freq_base"),
            "rope_scaling": self._rope_scaling(),
            "tie_word_embeddings": OUTPUT not in self.shapes,
        }

    def _rope_scaling(self) -> dict[str, Any] | None:
        kind = self._setting("rope.scaling.type", "none")
        factor = self._setting("rope.scaling.factor", self._setting("rope.scale_linear", 1.0))
        if kind == "none" and self._setting("rope.scale_linear"):
            kind = "linear"
        if self._rope_factors is not None:
            if kind != "none":
                raise BuildError(
                    f"{self.path}: rope scaling {kind!r} together with {ROPE_FACTORS} is not supported"
                )
            count = self._rope_factors.shape[0]
            factors = self._dequantized(ROPE_FACTORS, self._rope_factors, 0, count)
            return {"rope_type": "factors", "factors": [float(value) for value in factors]}
        return None if kind == "none" else {"rope_type": kind, "factor": factor}


@functools.cache
def hugging_face_name(name: str) -> str:
    """Turns a GGUF tensor's name into Hugging Face's; a name that is not known stays as it is."""
    stem, _, ending = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer and layer[2] in LAYER_NAMES:
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.{ending}"
    return f"{NAMES[stem]}.{ending}" if stem in NAMES else name


def interleaved_rows(head_dim: int, start: int, stop: int) -> NDArray[np.int64]:
    """Tells where rows of a query or key projection lie in a GGUF file of architecture llama.

    Such files hold a head's rows as pairs (0, d/2), (1, d/2 + 1), ... of Hugging Face's rows, for rotary
    embeddings that turn neighbours (llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute).

    Args:
        head_dim: Rows of a head.
        start: First row wanted, in Hugging Face's order.
        stop: Row after the last one wanted.

    Returns:
        int64 [stop - start]: rows in the file.
    """
    head, row = np.divmod(np.arange(start, stop, dtype=np.int64), head_dim)
    half, pair = np.divmod(row, head_dim // 2)
    return cast("NDArray[np.int64]", head * head_dim + 2 * pair + half)
