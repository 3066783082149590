"""vLLM on the CPU: paged attention, continuous batching and prefix caching."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Prompts, extended, main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLOCK_SIZE = 32  # the default on the CPU, 128, would leave up to 127 tokens of a prefix unshared


class Vllm:
    """vLLM's offline engine; log-probabilities of exactly the labels (`logprob_token_ids`)."""

    name = "vllm"

    def __init__(self, args: argparse.Namespace) -> None:
        cores = sorted(os.sched_getaffinity(0))[: args.threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(-(-args.kv_cache_mib // 1024))  # GiB
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import vllm  # noqa: PLC0415  (reads the environment)

        self._vllm = vllm
        self._llm = vllm.LLM(
            model=str(args.model),
            dtype={"bf16": "bfloat16", "fp32": "float32"}[args.dtype],
            block_size=BLOCK_SIZE,
            enable_prefix_caching=True,
            max_model_len=2048,
            disable_log_stats=True,
        )
        self._tokenizer = self._llm.get_tokenizer()
        self.version = vllm.__version__
        self.dtype = args.dtype
        self.threads = len(cores)
        self.settings = {"block_size": BLOCK_SIZE, "prefix_caching": True, "kv_cache_mib": args.kv_cache_mib}
        self.prompt_tokens_computed: int | None = None
        self.prompt_tokens_reused: int | None = None

    def encode(self, text: str) -> list[int]:
        """See `common.Peer`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """See `common.Peer`."""
        return str(self._tokenizer.decode(tokens))

    def read_labels(self, users: list[Prompts], labels: list[int]) -> list[NDArray[np.float64]]:
        """See `common.Peer`."""
        outputs = self._generate(users, max_tokens=1, logprob_token_ids=labels)
        return [np.array([_logprobs(output, labels) for output in of_user]) for of_user in outputs]

    def reason(
        self, users: list[Prompts], num_tokens: int, answer: list[int], labels: list[int]
    ) -> tuple[list[Prompts], list[NDArray[np.float64]]]:
        """See `common.Peer`; the second request finds the first one's tokens in the cache."""
        outputs = self._generate(users, max_tokens=num_tokens, ignore_eos=True)
        written = [[list(output.outputs[0].token_ids) for output in of_user] for of_user in outputs]
        return written, self.read_labels(extended(users, written, answer), labels)

    def _generate(self, users: list[Prompts], **sampling: object) -> list[list[Any]]:
        """Hand over all prompts of all users at once."""
        params = self._vllm.SamplingParams(temperature=0, detokenize=False, **sampling)
        prompts = [{"prompt_token_ids": prompt} for prompts in users for prompt in prompts]
        outputs = iter(self._llm.generate(prompts, params, use_tqdm=False))
        by_user = [[next(outputs) for _ in prompts] for prompts in users]
        for output in (output for of_user in by_user for output in of_user):
            reused = output.num_cached_tokens or 0
            self.prompt_tokens_reused = (self.prompt_tokens_reused or 0) + reused
            computed = len(output.prompt_token_ids) - reused
            self.prompt_tokens_computed = (self.prompt_tokens_computed or 0) + computed
        return by_user


def _logprobs(output: Any, labels: list[int]) -> list[float]:  # noqa: ANN401
    found = output.outputs[0].logprobs[0]
    return [found[label].logprob for label in labels]


if __name__ == "__main__":
    main("vLLM", Vllm)
