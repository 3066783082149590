"""The Reranker: candidates in, candidates in order of expected rating out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.adaptive import AdaptivePending, contenders
from exp3rt_trt.checks import check_kind, check_whole
from exp3rt_trt.errors import Exp3rtError, InvalidInputError
from exp3rt_trt.executors.choice import CpuOptions
from exp3rt_trt.groups import GroupBuilder, RawGroupBuilder, RawPrompts
from exp3rt_trt.inputs import as_user
from exp3rt_trt.jobs import UNCERTAINTY, Job, Limits, Request, ranking
from exp3rt_trt.many import LOOK_AHEAD, rank_in_order
from exp3rt_trt.pending import Pending, in_order
from exp3rt_trt.prompts import DEFAULT, PLAIN, Chat, PromptTemplate
from exp3rt_trt.rating import RatingScale
from exp3rt_trt.runtime import Runtime
from exp3rt_trt.scores import PromptScores, gather_scores
from exp3rt_trt.tokenization import PromptTokenizer

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from exp3rt_trt.catalog import Catalog
    from exp3rt_trt.catalog.encoder import ItemEncoder
    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.errors import EngineError
    from exp3rt_trt.executors import GroupResult
    from exp3rt_trt.generation import Generator
    from exp3rt_trt.inputs import ItemLike, UserLike, UserProfile
    from exp3rt_trt.prompts import Mode, RankingMode
    from exp3rt_trt.results import RankedResults
    from exp3rt_trt.stats import RerankerStats
    from exp3rt_trt.streams import CandidateStream


class Reranker:
    """Rates and orders a user's candidate items with a student LLM.

    Thread-safe; all calls share one executor and its cache of prefixes. `close` it, or use it as a context
    manager, to end its threads and free its memory early. It does not work in a forked child: make it there,
    or spawn.

    Args:
        engine: an opened engine; `from_pretrained` opens one by name.
        scale: what the student answers with; None for what its engine says, else 1 to 5.
        template: how prompts are laid out; None for the default.
        threads: cores to compute on; 0 for all of the process's affinity. This and the next two are for CPU
            engines; those for GPUs have their sizes from their recipes.
        kv_cache_mib: memory for keys and values, in MiB.
        max_batch_tokens: most tokens that go through the model at once; 0 for 512 for each thread, at most
            2,048.
        max_reasoning_tokens: where reasoning is cut off.
        item_cache_mib: memory for the keys and values of a segmented student's items, in MiB.
        item_kv_dtype: "int8" keeps those in a third of the memory; "" for the type of the catalogue, or else
            the engine's own.
        catalog: folder of such items, computed ahead of time by `exp3rt-trt catalog build`; its other items
            are computed as ever.

    Raises:
        InvalidInputError: naming the option that is out of range, or if there is a catalogue and the engine
            reads items behind their user.
        CatalogError: if the catalogue is damaged, or was computed with something else.
        EngineError: if the engine cannot run here, or a label of the scale is not one token.

    Example:
        >>> with Reranker.from_pretrained("engines/smollm2-135m") as reranker:  # doctest: +SKIP
        ...     ranked = reranker.rank("Likes slow films about work.", ["A baker at work.", "A war."])
        ...     print(ranked[0].item, ranked[0].expected_rating)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        scale: RatingScale | None = None,
        template: PromptTemplate | None = None,
        threads: int = 0,
        kv_cache_mib: int = 1024,
        max_batch_tokens: int = 0,
        max_reasoning_tokens: int = 256,
        item_cache_mib: int = 1024,
        item_kv_dtype: str = "",
        catalog: str | os.PathLike[str] | None = None,
    ) -> None:
        check_whole("max_reasoning_tokens", max_reasoning_tokens, 1)
        check_kind("scale", scale, RatingScale)
        check_kind("template", template, PromptTemplate)
        manifest = engine.manifest
        self.engine = engine
        self.scale = scale or manifest.scale or RatingScale.one_to_five()
        self.max_reasoning_tokens = max_reasoning_tokens
        self._tokenizer = PromptTokenizer(engine.tokenizer_path)
        kv_dtype = item_kv_dtype or (_kv_dtype_of(catalog) if catalog is not None else "")
        options = CpuOptions(threads, kv_cache_mib, max_batch_tokens, item_cache_mib, kv_dtype)
        self._runtime = Runtime(engine, options)
        stats = self._runtime.stats()
        limits = Limits(manifest.model.max_context, stats.blocks_total, stats.block_size, manifest.layout)
        self._raw_groups = RawGroupBuilder(self._tokenizer, scale=self.scale, limits=limits)
        self._groups = GroupBuilder(
            self._tokenizer,
            template=template or DEFAULT,
            scale=self.scale,
            chat=Chat(*manifest.chat) if manifest.chat is not None else PLAIN,
            limits=limits,
            end_tokens=manifest.end_tokens,
            max_reasoning_tokens=max_reasoning_tokens,
        )
        self.catalog: Catalog | None = None
        if catalog is not None:
            self.catalog = self._groups.catalog = self._open_catalog(catalog)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: str = "bf16",
        scale: RatingScale | None = None,
        template: PromptTemplate | None = None,
        threads: int = 0,
        kv_cache_mib: int = 1024,
        max_batch_tokens: int = 0,
        max_reasoning_tokens: int = 256,
        item_cache_mib: int = 1024,
        item_kv_dtype: str = "",
        catalog: str | os.PathLike[str] | None = None,
    ) -> Reranker:
        """Open an engine by name; the options are those of `Reranker`, and two more.

        `name_or_path` is an engine directory; or a checkpoint directory, a GGUF file, a base student's name
        or a hub name, for which an engine is built once and kept in the cache. `dtype` is that of an engine
        which is built, "bf16", "int8" or "fp32"; a finished engine has its own.

        Raises:
            EngineError: if the engine cannot be opened or cannot run here.
            BuildError: if none can be built.
        """
        from exp3rt_trt.engines.engine import Engine  # noqa: PLC0415  (needed only here)

        return cls(
            Engine.from_pretrained(name_or_path, dtype),
            scale=scale,
            template=template,
            threads=threads,
            kv_cache_mib=kv_cache_mib,
            max_batch_tokens=max_batch_tokens,
            max_reasoning_tokens=max_reasoning_tokens,
            item_cache_mib=item_cache_mib,
            item_kv_dtype=item_kv_dtype,
            catalog=catalog,
        )

    def rank(
        self,
        user: UserLike,
        candidates: Iterable[ItemLike],
        *,
        top_k: int | None = None,
        mode: RankingMode = "score",
        timeout_s: float | None = None,
        uncertainty: float = UNCERTAINTY,
        cache_salt: str = "",
    ) -> RankedResults:
        """Rate and order a user's candidates.

        Args:
            user: a UserProfile, a mapping with its fields, or the profile's text.
            candidates: Items, mappings with their fields, or descriptions; the ids must differ.
            top_k: how many rated candidates to return; None for all.
            mode: "score" reads the rating at once; "reason" lets the student explain itself first; "adaptive"
                scores all, then reasons for those that can still be among the top_k, which it needs.
            timeout_s: seconds after which candidates that are not finished come back as expired; None for no
                limit.
            uncertainty: in mode "adaptive", how far a reasoned rating may lie from the scored one, in
                standard deviations of the scored distribution; see `adaptive.can_enter`.
            cache_salt: keys and values are shared with requests of the same salt alone: one for each tenant
                that must not learn from the time taken what others asked.

        Returns:
            Rated candidates, best first, then those without a rating, with the reason. Empty for no
            candidates.

        Raises:
            InvalidInputError: naming the user's field or the option that cannot be used.
            EngineError: if the executor failed, or the Reranker is closed.
        """
        return self._start(
            user, candidates, Request(mode, top_k, timeout_s, uncertainty, cache_salt)
        ).result()

    async def arank(
        self,
        user: UserLike,
        candidates: Iterable[ItemLike],
        *,
        top_k: int | None = None,
        mode: RankingMode = "score",
        timeout_s: float | None = None,
        uncertainty: float = UNCERTAINTY,
        cache_salt: str = "",
    ) -> RankedResults:
        """As `rank`, without blocking the event loop; cancelling the task stops the computation."""
        from exp3rt_trt.starting import in_thread  # noqa: PLC0415  (asyncio is not needed by all)

        request = Request(mode, top_k, timeout_s, uncertainty, cache_salt)
        pending = await in_thread(
            lambda rest: self._start(user, candidates, replace(request, timeout_s=rest)), timeout_s
        )
        return await pending.wait()

    async def stream(
        self,
        user: UserLike,
        candidates: Iterable[ItemLike],
        *,
        top_k: int | None = None,
        mode: Mode = "score",
        timeout_s: float | None = None,
        cache_salt: str = "",
    ) -> CandidateStream:
        """Start to rate a user's candidates, each of which comes back as it finishes.

        The arguments are those of `rank`. The numbers are the same; each candidate is a group of its own,
        which finds the prefix in the cache.

        Returns:
            Candidates to iterate over, and their ranking in the end.

        Raises:
            InvalidInputError: naming the user's field or the option that cannot be used; for mode "adaptive",
                since what is reasoned for is known when all are scored.
            EngineError: if the Reranker is closed.
        """
        from exp3rt_trt.starting import in_thread  # noqa: PLC0415  (asyncio is not needed by all)
        from exp3rt_trt.streams import CandidateStream  # noqa: PLC0415

        if mode not in ("score", "reason"):
            raise InvalidInputError(f'mode must be "score" or "reason" in a stream, not {mode!r}')
        request = Request(mode, top_k, timeout_s, cache_salt=cache_salt)

        def start(rest: float | None) -> CandidateStream:
            job = self._groups.build(user, candidates, replace(request, timeout_s=rest), mode)
            return CandidateStream(job, self._start_job)

        return await in_thread(start, timeout_s)

    def rank_many(
        self,
        jobs: Iterable[tuple[UserLike, Iterable[ItemLike]]],
        *,
        top_k: int | None = None,
        mode: RankingMode = "score",
        timeout_s: float | None = None,
        uncertainty: float = UNCERTAINTY,
        cache_salt: str = "",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Iterator[RankedResults]:
        """Rate and order the candidates of many users, computed together.

        Args:
            jobs: pairs of a user and candidates, taken as they are needed; any iterable.
            top_k: see `rank`.
            mode: see `rank`.
            timeout_s: see `rank`; for each user by itself.
            uncertainty: see `rank`.
            cache_salt: see `rank`.
            progress: called after each user with how many are done, and how many there are if that is known.

        Yields:
            Results in the order of the jobs. A job that failed as a whole yields a result whose `error` is
            set.

        Raises:
            InvalidInputError: naming the option that cannot be used.
        """
        request = Request(mode, top_k, timeout_s, uncertainty, cache_salt)
        self._runtime.check_process()

        def start(
            user: object, candidates: object, recover: Callable[[EngineError], RankedResults]
        ) -> Pending[RankedResults] | AdaptivePending:
            return self._start(user, candidates, request, recover)

        return rank_in_order(jobs, start, progress)

    def score_prompts(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """Read the label probabilities behind raw prompts.

        Args:
            prefix: the text that all share, with special tokens where they belong.
            suffixes: the rest of each prompt, up to the very place of the label; nothing is added.

        Returns:
            Probabilities, float64 [num_suffixes, num_labels]; a row is NaN if the model gave no finite
            number.

        Raises:
            InvalidInputError: naming the suffix that is too long or has no tokens.
            EngineError: if a label is not one token there, the executor failed, or the Reranker is closed.
        """
        return self._start_raw(RawPrompts(prefix, suffixes)).result().probabilities

    def run_prompts(self, prompts: Iterable[RawPrompts]) -> Iterator[PromptScores]:
        """Rate raw prompts of many users, computed together; results in their order."""
        return in_order(prompts, self._start_raw, LOOK_AHEAD)

    def generator(self) -> Generator:
        """Return a generator of text on the same engine, which shares memory and threads with this one."""
        from exp3rt_trt.generation import Generator  # noqa: PLC0415  (needed only here)

        return Generator(self.engine, runtime=self._runtime)

    def item_encoder(self) -> ItemEncoder:
        """Return what computes items for a catalogue, on the same engine; see `catalog.build_catalog`.

        Raises:
            InvalidInputError: if the engine reads items behind their user.
        """
        from exp3rt_trt.catalog.encoder import ItemEncoder  # noqa: PLC0415  (needed only here)

        return ItemEncoder(self.engine, self._groups, self._runtime)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        return self._tokenizer.decode(tokens, keep_special=True)

    def stats(self) -> RerankerStats:
        """Return what was computed since the Reranker was made."""
        return self._runtime.stats()

    @property
    def threads(self) -> int:
        """Cores that are computed on; 0 where a GPU computes."""
        return self._runtime.threads

    @property
    def isa(self) -> str:
        """Instruction set that is computed with, or what computes on a GPU."""
        return self._runtime.isa

    def close(self) -> None:
        """Stop computing and free the memory; those who wait get an EngineError. May be called twice."""
        self._runtime.close()
        if self.catalog is not None:
            self.catalog.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_catalog(self, path: str | os.PathLike[str]) -> Catalog:
        from exp3rt_trt.catalog import Catalog  # noqa: PLC0415  (needed only here)

        try:
            return Catalog(path, self.item_encoder().header)
        except Exp3rtError:
            self.close()
            raise

    def _start(
        self,
        user: object,
        candidates: object,
        request: Request,
        recover: Callable[[EngineError], RankedResults] | None = None,
    ) -> Pending[RankedResults] | AdaptivePending:
        if request.mode != "adaptive":
            return self._start_job(self._groups.build(user, candidates, request, request.mode), recover)
        return self._start_adaptive(as_user(user), candidates, request, recover)

    def _start_adaptive(
        self,
        user: UserProfile,
        candidates: object,
        request: Request,
        recover: Callable[[EngineError], RankedResults] | None,
    ) -> AdaptivePending:
        started = time.monotonic()
        job = self._groups.build(user, candidates, request, "score", staged=True)
        items = {slot.item_id: slot.item for slot in job.slots if slot.status == "ok"}

        def reason(scored: RankedResults) -> Pending[RankedResults] | None:
            chosen = contenders(scored, self.scale, request.top_k or len(scored), request.uncertainty)
            if not chosen:
                return None
            rest = request.timeout_s and max(request.timeout_s - (time.monotonic() - started), 1e-9)
            again = [items[item.item_id] for item in chosen]
            second = replace(request, timeout_s=rest)
            return self._start_job(self._groups.build(user, again, second, "reason", staged=True))

        return AdaptivePending(self._start_job(job), reason, request.top_k, recover)

    def _start_job(
        self, job: Job, recover: Callable[[EngineError], RankedResults] | None = None
    ) -> Pending[RankedResults]:
        decode = self._tokenizer.decode if job.mode == "reason" else None

        def finish(results: list[GroupResult]) -> RankedResults:
            return ranking(job, results[0] if results else None, self.scale, decode)

        return self._runtime.start([job.group] if job.group is not None else [], finish, recover)

    def _start_raw(self, prompts: RawPrompts) -> Pending[PromptScores]:
        built = self._raw_groups.build(prompts)

        def finish(results: list[GroupResult]) -> PromptScores:
            return gather_scores(results, [numbers for _, numbers in built], self.scale)

        return self._runtime.start([group for group, _ in built], finish)


def _kv_dtype_of(catalog: str | os.PathLike[str]) -> str:
    """Return the item_kv_dtype that a catalogue was computed with."""
    from exp3rt_trt.catalog.header import CatalogHeader  # noqa: PLC0415  (needed only here)

    return CatalogHeader.load(Path(catalog)).item_kv_dtype
