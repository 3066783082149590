"""Groups as requests to TensorRT-LLM's LLM API; runs in the worker process only."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of 0 to 100; TensorRT-LLM's own default is 35. All users share the instructions, a user's calls the profile.
INSTRUCTIONS_PRIORITY = 90
PROFILE_PRIORITY = 70
SUFFIX_PRIORITY = 20
WARM_PREFIXES = 1024  # prefixes that are remembered as computed; one that was evicted since only costs time
WITHOUT_END = -1  # an end token that no model writes


@dataclass(frozen=True)
class GroupRequest:
    """A group as it comes through the pipe; the fields of `_core.RerankGroup`."""

    prefix: list[list[int]]
    suffixes: list[list[int]]
    label_tokens: list[int]
    answer_tokens: list[int]
    max_reasoning_tokens: int
    end_tokens: list[int]
    timeout_s: float
    cache_salt: str

    @property
    def shared(self) -> list[int]:
        """The whole prefix."""
        return [token for segment in self.prefix for token in segment]


@dataclass
class Candidate:
    """What is known of a candidate so far; "pending" until it has an outcome."""

    status: str = "pending"
    logits: list[float] = field(default_factory=list)
    reasoning: list[int] = field(default_factory=list)
    error: str = ""


@dataclass
class Counts:
    """Counted over all requests; tokens."""

    prompt_tokens_computed: int = 0
    prompt_tokens_reused: int = 0
    generated_tokens: int = 0
    requests: int = 0


class LabelReader:
    """A logits processor that keeps the labels' logits of the step behind the prompt, and changes nothing.

    The gather runs where the logits are, on the stream that makes them; their copy to the host is made when
    the request is finished, and the gather with it. It works only in the process that computes, which
    TLLM_WORKER_USE_SINGLE_PROCESS makes the worker's own.

    Args:
        labels: tokens.
        prompt_length: tokens of the prompt; steps with more tokens are not the one that counts.
    """

    def __init__(self, labels: Sequence[int], prompt_length: int) -> None:
        self._labels = list(labels)
        self._prompt_length = prompt_length
        self._found: Any = None

    def __call__(  # the parameters' number and order are the interface's
        self,
        req_id: int,  # noqa: ARG002
        logits: Any,  # noqa: ANN401  (a torch.Tensor [1, 1, vocab])
        token_ids: list[list[int]],
        stream_ptr: int | None,  # noqa: ARG002
        client_id: int | None,  # noqa: ARG002
    ) -> None:
        """Keep a copy of the labels' logits."""
        if len(token_ids[0]) == self._prompt_length:
            self._found = logits[..., self._labels]

    def values(self) -> list[float]:
        """Return the logits.

        Raises:
            RuntimeError: if it was never called in this process.
        """
        if self._found is None:
            raise RuntimeError(
                "the labels' logits did not come back: TensorRT-LLM did not call the logits processor in "
                "this process (TLLM_WORKER_USE_SINGLE_PROCESS=1)"
            )
        return [float(value) for value in self._found.reshape(-1).tolist()]


def before_answer(reasoning: list[int], answer: list[int]) -> list[int]:
    """Return a reasoning up to where the student begins the answer itself; all of it if there is none."""
    places = range(len(reasoning) - len(answer) + 1 if answer else 0)
    end = next((i for i in places if reasoning[i : i + len(answer)] == answer), len(reasoning))
    return reasoning[:end]


class GroupRunner:
    """Runs groups as requests: the prefix first and once, then all candidates.

    Args:
        llm: tensorrt_llm.LLM.
        api: the module tensorrt_llm.
    """

    def __init__(self, llm: Any, api: Any) -> None:  # noqa: ANN401
        self._llm = llm
        self._api = api
        self._warm: OrderedDict[tuple[str, tuple[int, ...]], asyncio.Task[Any]] = OrderedDict()
        self.counts = Counts()

    async def run(self, group: GroupRequest, candidates: list[Candidate]) -> None:
        """Compute a group; what is finished is in `candidates` even if this is cancelled half-way.

        Raises:
            RuntimeError: if the prefix failed, or every candidate did.
        """
        if len(group.suffixes) > 1:
            await self._warm_up(group)
        tasks = [
            asyncio.ensure_future(self._candidate(group, index, candidate))
            for index, candidate in enumerate(candidates)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if all(candidate.status == "failed" for candidate in candidates):
            raise RuntimeError(candidates[0].error)

    async def _warm_up(self, group: GroupRequest) -> None:
        """Have the prefix computed, unless it was lately; groups that share it wait for one request."""
        tokens = group.shared
        if not tokens:
            return
        key = group.cache_salt, tuple(tokens)
        task = self._warm.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # One token more, because the block of a prompt's last token is not kept.
            prompt, sampling = [*tokens, tokens[-1]], self._sampling(max_tokens=1)
            task = asyncio.ensure_future(self._request(prompt, sampling, group, generates=False))
            self._warm[key] = task
        self._warm.move_to_end(key)
        while len(self._warm) > WARM_PREFIXES:
            self._warm.popitem(last=False)
        await asyncio.shield(task)  # a group that is cancelled leaves the prefix to those that wait with it

    async def _candidate(self, group: GroupRequest, index: int, candidate: Candidate) -> None:
        prompt = group.shared + group.suffixes[index]
        try:
            if group.max_reasoning_tokens > 0:
                candidate.reasoning = await self._reason(group, prompt)
            if group.label_tokens:
                candidate.logits = await self._rate(group, prompt + candidate.reasoning + group.answer_tokens)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # of TensorRT-LLM, whatever it is; one candidate's failure stays its own
            candidate.status, candidate.error = "failed", f"{type(error).__name__}: {error}"
            return
        candidate.status = "ok"

    async def _reason(self, group: GroupRequest, prompt: list[int]) -> list[int]:
        ends = group.end_tokens
        sampling = self._sampling(
            max_tokens=group.max_reasoning_tokens,
            end_id=ends[0] if ends else WITHOUT_END,
            stop_token_ids=ends[1:] or None,
        )
        tokens = await self._request(prompt, sampling, group, generates=True)
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        return before_answer(tokens[:stop], group.answer_tokens)

    async def _rate(self, group: GroupRequest, prompt: list[int]) -> list[float]:
        reader = LabelReader(group.label_tokens, len(prompt))
        sampling = self._sampling(max_tokens=1, logits_processor=reader)
        await self._request(prompt, sampling, group, generates=False)
        return reader.values()

    def _sampling(self, *, max_tokens: int, end_id: int = WITHOUT_END, **more: Any) -> Any:  # noqa: ANN401
        """Greedy; without a tokenizer in the worker, the end token must be named."""
        return self._api.SamplingParams(
            max_tokens=max_tokens,
            end_id=end_id,
            pad_id=0,
            temperature=0.0,
            top_k=1,
            detokenize=False,
            add_special_tokens=False,
            **more,
        )

    async def _request(
        self,
        prompt: list[int],
        sampling: Any,  # noqa: ANN401
        group: GroupRequest,
        *,
        generates: bool,
    ) -> list[int]:
        retention = self._retention(group)
        output = self._llm.generate_async(
            prompt,
            sampling_params=sampling,
            kv_cache_retention_config=retention,
            cache_salt=group.cache_salt or None,
        )
        try:
            await output.aresult()
        except asyncio.CancelledError:
            output.abort()
            raise
        if getattr(output, "error", None):  # some failures are told, and not raised
            raise RuntimeError(output.error)
        tokens = [int(token) for token in output.outputs[0].token_ids]
        reused = min(int(getattr(output, "cached_tokens", 0) or 0), len(prompt))
        self.counts.prompt_tokens_reused += reused
        self.counts.prompt_tokens_computed += len(prompt) - reused
        self.counts.generated_tokens += len(tokens) if generates else 0
        self.counts.requests += 1
        return tokens

    def _retention(self, group: GroupRequest) -> Any:  # noqa: ANN401
        """Instructions stay longest, then the profile; a block's last claim counts, so all say the same."""
        config = self._api.llmapi.KvCacheRetentionConfig
        ranges, start = [], 0
        for number, segment in enumerate(group.prefix):
            priority = INSTRUCTIONS_PRIORITY if number == 0 and len(group.prefix) > 1 else PROFILE_PRIORITY
            if segment:
                ranges.append(config.TokenRangeRetentionConfig(start, start + len(segment), priority, None))
            start += len(segment)
        ranges.append(config.TokenRangeRetentionConfig(start, None, SUFFIX_PRIORITY, None))
        return config(
            token_range_retention_configs=ranges,
            decode_retention_priority=SUFFIX_PRIORITY,
            decode_duration_ms=None,
        )
