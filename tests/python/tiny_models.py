"""Small random checkpoints of every family, a tokenizer trained on the spot, and the reference."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from exp3rt_trt import _core

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exp3rt_trt.engines.engine import Engine
    from numpy.typing import NDArray

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou rate films.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = """The user likes slow films with honest characters, and dislikes loud ones with thin plots.
Predicted User Rating: 7
Reasoning: the film is a quiet drama about a family, so the user would probably like it a lot.
<Movie Description> Title: The Long Way Home (1998). Genres: Drama, Comedy. </Movie Description>
Average rating 8.5 of 10; the other one got 3 or 4, and 2 of 60 people left before the end."""

COMMON = {
    "vocab_size": 301,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_untied": ("Llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "llama2": ("Llama", {"tie_word_embeddings": False, "num_key_value_heads": 4, "intermediate_size": 172}),
    "llama3": ("Llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE, "vocab_size": 320}),
    "llama_linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": False}),
    "mistral_sliding": ("Mistral", {"sliding_window": 300, "tie_word_embeddings": False}),
    "qwen2": ("Qwen2", {"num_hidden_layers": 2, "rope_theta": 1e6}),
    "qwen3": ("Qwen3", {"head_dim": 64, "tie_word_embeddings": False, "rope_theta": 1e6}),
}


def train_tokenizer(directory: Path, template: str | None = CHATML) -> None:
    """Writes a byte-level BPE tokenizer with single digits, in the manner of SmolLM2's, and its template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **named)
    wrapped.save_pretrained(directory)


def make_checkpoint(family: str, directory: Path, **saving: Any) -> Path:
    """Writes a random checkpoint of a family; `saving` goes to save_pretrained (max_shard_size)."""
    import torch
    import transformers

    name, own = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**copy.deepcopy({**COMMON, **own}))
    generator = torch.Generator().manual_seed(sum(family.encode()))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(noise * 0.1)
            else:
                parameter.copy_(noise * 0.08)
    model.save_pretrained(directory, **saving)
    train_tokenizer(directory)
    return directory


def reference_logits(checkpoint: Path, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Computes the last position's logits with transformers in float32, [num_prompts, vocab]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        return np.stack([model(torch.tensor([list(prompt)])).logits[0, -1].numpy() for prompt in prompts])


def engine_logits(engine: Engine, prompts: Sequence[Sequence[int]], shared: int = 0) -> NDArray[np.float32]:
    """Computes the same with the engine, as one group; its prefix is the first `shared` tokens of all."""
    group = _core.RerankGroup(
        prefix=[list(prompts[0][:shared])] if shared else [],
        suffixes=[list(prompt[shared:-1]) for prompt in prompts],
        label_tokens=list(range(engine.manifest.model.vocab_size)),
        answer_tokens=[prompts[0][-1]],
    )
    return np.stack([candidate.label_logits for candidate in run_group(engine, group).candidates])


def run_group(engine: Engine, group: _core.RerankGroup) -> _core.GroupResult:
    """Has the engine compute one group, all of whose candidates must be ok."""
    executor = _core.CpuExecutor(
        str(engine.weights_path),
        engine.core_tensors(),
        engine.core_config(),
        _core.ExecutorOptions(threads=1, max_batch_tokens=512, kv_cache_bytes=1 << 26),
    )
    done = threading.Event()
    outcome: list[tuple[_core.GroupResult | None, str | None]] = []

    def on_done(result: _core.GroupResult | None, error: str | None) -> None:
        outcome.append((result, error))
        done.set()

    executor.submit(group, on_done)
    assert done.wait(timeout=60)
    executor.close()
    result, error = outcome[0]
    assert result is not None, error
    assert [candidate.status for candidate in result.candidates] == ["ok"] * len(group.suffixes)
    return result


def random_prompts(lengths: Sequence[int], shared: int, vocab_size: int) -> list[list[int]]:
    """Makes prompts of random tokens that begin with the same `shared` tokens and end with the same one."""
    random = np.random.default_rng(len(lengths) * 1000 + shared)
    prefix = random.integers(0, vocab_size, shared).tolist()
    return [prefix + random.integers(0, vocab_size, n - shared - 1).tolist() + [7] for n in lengths]
