"""OpenVINO GenAI on the CPU: its continuous batching pipeline with prefix caching.

The pipeline returns the log-probability of the chosen token only, and its grammars do not bind its beam
search. But a beam search for one token returns the best tokens with theirs: as many beams as labels, and once
more with many beams where a label is not among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from common import Prompts, extended, main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANY_BEAMS = 200


class OpenVino:
    """A pipeline made of a GGUF file or of an exported model directory."""

    name = "openvino"

    def __init__(self, args: argparse.Namespace) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 256
        scheduler.cache_size = -(-args.kv_cache_mib // 1024)  # GB
        precision = {"bf16": "bf16", "fp32": "f32"}[args.dtype]
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,  # the default is u8
            "INFERENCE_NUM_THREADS": args.threads,
        }
        self._pipeline = genai.ContinuousBatchingPipeline(str(args.model), scheduler, "CPU", properties)
        self._tokenizer = self._pipeline.get_tokenizer()
        self.version = f"genai {genai.__version__}, openvino {ov.__version__}"
        self.dtype = args.dtype
        self.threads = args.threads
        self.settings = {
            "prefix_caching": True,
            "kv_cache_precision": precision,
            "max_num_batched_tokens": 2048,
        }
        self.prompt_tokens_computed: int | None = None
        self.prompt_tokens_reused: int | None = None

    def encode(self, text: str) -> list[int]:
        """See `common.Peer`."""
        return [
            int(token) for token in self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0]
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """See `common.Peer`."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def read_labels(self, users: list[Prompts], labels: list[int]) -> list[NDArray[np.float64]]:
        """See `common.Peer`."""
        found = [
            _scores(each, labels) for of_user in self._best_tokens(users, len(labels)) for each in of_user
        ]
        prompts = [prompt for of_user in users for prompt in of_user]
        missing = [number for number, row in enumerate(found) if None in row]
        if missing:
            again = self._best_tokens([[prompts[number] for number in missing]], MANY_BEAMS)[0]
            for number, result in zip(missing, again, strict=True):
                found[number] = _scores(result, labels)
        self.settings["prompts_with_more_beams"] = len(missing)
        rows = iter(found)
        return [np.array([next(rows) for _ in of_user], dtype=np.float64) for of_user in users]

    def reason(
        self, users: list[Prompts], num_tokens: int, answer: list[int], labels: list[int]
    ) -> tuple[list[Prompts], list[NDArray[np.float64]]]:
        """See `common.Peer`; the second request finds the first one's tokens in the cache."""
        config = genai.GenerationConfig(max_new_tokens=num_tokens, min_new_tokens=num_tokens, ignore_eos=True)
        results = self._generate(users, config)
        written = [[list(result.m_generation_ids[0]) for result in of_user] for of_user in results]
        return written, self.read_labels(extended(users, written, answer), labels)

    def _best_tokens(self, users: list[Prompts], beams: int) -> list[list[Any]]:
        config = genai.GenerationConfig(
            max_new_tokens=1, ignore_eos=True, num_beams=beams, num_return_sequences=beams
        )
        return self._generate(users, config)

    def _generate(self, users: list[Prompts], config: genai.GenerationConfig) -> list[list[Any]]:
        """Hand over all prompts of all users at once."""
        inputs = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompts in users for prompt in prompts]
        results = iter(self._pipeline.generate(inputs, [config] * len(inputs)))
        return [[next(results) for _ in prompts] for prompts in users]


def _scores(result: Any, labels: list[int]) -> list[float | None]:  # noqa: ANN401
    found = {ids[0]: score for ids, score in zip(result.m_generation_ids, result.m_scores, strict=True)}
    return [found.get(label) for label in labels]


if __name__ == "__main__":
    main("OpenVINO GenAI", OpenVino)
