"""transformers: a user's prefix is computed once, the candidates in padded batches behind it."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from common import Prompts, common_length, main
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

BATCH = {"read": 8, "write": 32}  # candidates at a time


class Transformers:
    """A causal model with SDPA attention; only the labels' rows meet the output matrix in `read_labels`."""

    name = "transformers"

    def __init__(self, args: argparse.Namespace) -> None:
        torch.set_num_threads(args.threads)
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[args.dtype]
        self._model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=dtype, attn_implementation="sdpa"
        ).eval()
        named = inspect.signature(self._model.model.forward).parameters
        self._cache = "cache" if "cache" in named else "past_key_values"  # the name since 5.24, and before
        self._tokenizer = AutoTokenizer.from_pretrained(args.model)
        self.version = f"{transformers.__version__}, torch {torch.__version__}"
        self.dtype = args.dtype
        self.threads = args.threads
        self.settings = {"attention": "sdpa", "batch": BATCH}
        self.prompt_tokens_computed: int | None = None
        self.prompt_tokens_reused: int | None = None

    def encode(self, text: str) -> list[int]:
        """See `common.Peer`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """See `common.Peer`."""
        return str(self._tokenizer.decode(tokens))

    @torch.inference_mode()
    def read_labels(self, users: list[Prompts], labels: list[int]) -> list[NDArray[np.float64]]:
        """See `common.Peer`."""
        rows = self._model.get_output_embeddings().weight[labels].float()
        found = []
        for prompts in users:
            logits = np.empty((len(prompts), len(labels)))
            for batch in self._batches(prompts, BATCH["read"]):
                logits[batch.numbers] = (batch.states.float() @ rows.T).numpy()
            found.append(logits)
        return found

    @torch.inference_mode()
    def reason(
        self, users: list[Prompts], num_tokens: int, answer: list[int], labels: list[int]
    ) -> tuple[list[Prompts], list[NDArray[np.float64]]]:
        """See `common.Peer`; the answer is read behind the reasoning, which is still there."""
        rows = self._model.get_output_embeddings().weight[labels].float()
        written: list[Prompts] = []
        found = []
        for prompts in users:
            written.append([[] for _ in prompts])
            logits = np.empty((len(prompts), len(labels)))
            for batch in self._batches(prompts, BATCH["write"]):
                tokens, states = self._continue(batch, num_tokens, answer)
                logits[batch.numbers] = (states.float() @ rows.T).numpy()
                for number, reasoning in zip(batch.numbers, tokens.tolist(), strict=True):
                    written[-1][number] = reasoning
            found.append(logits)
        return written, found

    def _batches(self, prompts: Prompts, size: int) -> Any:  # noqa: ANN401
        """Yield batches of prompts of similar length, computed behind their common prefix."""
        shared = common_length(prompts)
        prefix = DynamicCache(config=self._model.config)
        if shared:
            self._model.model(torch.tensor([prompts[0][:shared]]), **{self._cache: prefix})
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        computed = shared + sum(len(prompt) - shared for prompt in prompts)
        self.prompt_tokens_computed = (self.prompt_tokens_computed or 0) + computed
        self.prompt_tokens_reused = (self.prompt_tokens_reused or 0) + shared * (len(prompts) - 1)
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            yield self._prefill(numbers, [prompts[number][shared:] for number in numbers], prefix, shared)

    def _prefill(self, numbers: list[int], suffixes: Prompts, prefix: DynamicCache, shared: int) -> Batch:
        """Compute suffixes, padded behind their ends: causal attention lets no suffix see its padding."""
        cache = copy.deepcopy(prefix)
        if shared:
            cache.batch_repeat_interleave(len(suffixes))
        lengths = torch.tensor([len(suffix) for suffix in suffixes])
        longest = int(lengths.max())
        padded = torch.tensor([suffix + suffix[-1:] * (longest - len(suffix)) for suffix in suffixes])
        states = self._model.model(padded, **{self._cache: cache}).last_hidden_state
        last = states[torch.arange(len(suffixes)), lengths - 1]
        seen = torch.arange(shared + longest)[None] < shared + lengths[:, None]
        return Batch(numbers, last, cache, seen, shared + lengths)

    def _continue(
        self, batch: Batch, num_tokens: int, answer: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write greedily, [num_prompts, num_tokens], and return the states behind the answer too."""
        output = self._model.get_output_embeddings()
        written = [output(batch.states).argmax(-1)]
        for _ in range(num_tokens - 1):
            written.append(output(self._append(batch, written[-1][:, None])).argmax(-1))
        answers = torch.tensor([answer]).expand(len(batch.numbers), -1)
        states = self._append(batch, torch.cat([written[-1][:, None], answers], dim=1))
        return torch.stack(written, dim=1), states

    def _append(self, batch: Batch, tokens: torch.Tensor) -> torch.Tensor:
        """Compute tokens, [num_prompts, num_new]; the padding between prompt and reasoning is masked."""
        batch.seen = torch.cat([batch.seen, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        positions = batch.lengths[:, None] + torch.arange(tokens.shape[1])
        batch.lengths = batch.lengths + tokens.shape[1]
        given = {"attention_mask": batch.seen.long(), "position_ids": positions}
        states: torch.Tensor = self._model.model(
            tokens, **{self._cache: batch.cache}, **given
        ).last_hidden_state
        return states[:, -1]


class Batch:
    """Prompts after prefill.

    Args:
        numbers: the prompts' places among the user's.
        states: of their last tokens, [num_prompts, hidden_size].
        cache: keys and values, padding included.
        seen: which of them are not padding, [num_prompts, num_cached].
        lengths: of the prompts, [num_prompts].
    """

    def __init__(
        self,
        numbers: list[int],
        states: torch.Tensor,
        cache: DynamicCache,
        seen: torch.Tensor,
        lengths: torch.Tensor,
    ) -> None:
        self.numbers, self.states, self.cache, self.seen, self.lengths = numbers, states, cache, seen, lengths


if __name__ == "__main__":
    main("transformers", Transformers)
