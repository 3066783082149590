"""The rankings of `exp3rt-trt evaluate`: CF alone, the student, and both blended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from exp3rt_trt.evaluate.rankers import StudentRanking, blended, fit_blend, score_lists
from exp3rt_trt.evaluate.ranking import candidate_lists, measure_rankings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

    from exp3rt_trt.cli.evaluate_options import EvaluateOptions
    from exp3rt_trt.evaluate.bootstrap import Bootstrap
    from exp3rt_trt.evaluate.data import EvaluationData
    from exp3rt_trt.evaluate.ranking import CandidateList, ListScores, RankingTable
    from exp3rt_trt.inputs import Id
    from exp3rt_trt.pipeline.implicit_stage import ImplicitFirstStage
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.reranker import Reranker


class Rankings:
    """Ranks the first stage's candidates by every method that the options name.

    Args:
        options: of the command.
        data: with interactions.
        stage: proposes the candidates; its own order is the baseline.
        reranker: the student.
        bar: shows how far each method is.
    """

    def __init__(
        self,
        options: EvaluateOptions,
        data: EvaluationData,
        stage: ImplicitFirstStage,
        reranker: Reranker,
        bar: Progress,
    ) -> None:
        self._options = options
        self._data = data
        self._stage = stage
        self._reranker = reranker
        self._bar = bar

    def table(self, baseline: str, bootstrap: Bootstrap) -> RankingTable | None:
        """Measure all methods; None if there is nobody to rank for, which is told.

        Args:
            baseline: name of the first stage's own order.
            bootstrap: of the intervals.
        """
        options, data = self._options, self._data
        lists = self._lists(data.users_to_rank(options.users))
        if not lists:
            typer.echo("no rankings: none of the measured users has a profile and held-out items", err=True)
            return None
        scores = {baseline: score_lists(lists, self._stage.scores)}
        validation = self._lists(data.users_to_fit(options.blend_users)) if options.blend_users else []
        for mode in options.modes:
            scores[mode] = self._score(mode, lists)
            if validation:
                name = f"{mode}, blended"
                scores[name] = self._blend(mode, name, validation, scores[baseline], scores[mode])
        return measure_rankings(lists, scores, baseline=baseline, bootstrap=bootstrap)

    def _lists(self, users: Sequence[Id]) -> list[CandidateList]:
        least = self._options.right_from
        right = self._data.right_items(least) if least else self._data.held_out
        return candidate_lists(self._stage, right, users, self._options.candidates)

    def _score(self, mode: RankingMode, lists: Sequence[CandidateList]) -> ListScores:
        task = self._bar.add_task(f"ranking, {mode}", total=len(lists))
        rank = StudentRanking(self._reranker, self._data.texts, mode, lambda: self._bar.advance(task))
        scores = score_lists(lists, rank)
        if mode == "adaptive":
            total = sum(len(each.item_ids) for each in lists)
            typer.echo(f"adaptive: reasoned for {rank.num_reasoned} of {total} candidates", err=True)
        return scores

    def _blend(
        self,
        mode: RankingMode,
        name: str,
        validation: Sequence[CandidateList],
        cf: ListScores,
        by_student: ListScores,
    ) -> ListScores:
        of_student = self._score(mode, validation)
        blend = fit_blend(validation, score_lists(validation, self._stage.scores), of_student)
        typer.echo(f"{name}: the student's weight is {blend.weight:g}", err=True)
        return blended(blend, cf, by_student)
