"""Measure a student: ratings, rankings and explanations, beside baselines and with confidence intervals.

A method is a function: a `Predictor` from rows to predictions, or a `Ranker` from a user and item ids to
scores. To measure another one is to write another function.
"""

from __future__ import annotations

from exp3rt_trt.evaluate.ablation import without
from exp3rt_trt.evaluate.bootstrap import Bootstrap, Estimate
from exp3rt_trt.evaluate.collaborative import collaborative_rating, fit_als
from exp3rt_trt.evaluate.explanations.measure import Explained, ExplanationTable, measure_explanations
from exp3rt_trt.evaluate.interactions import read_interactions
from exp3rt_trt.evaluate.predictors import (
    Failure,
    Predictions,
    Predictor,
    calibrated,
    global_mean,
    student,
    user_item_bias,
)
from exp3rt_trt.evaluate.rankers import Ranker, StudentRanking, blended, fit_blend, score_lists
from exp3rt_trt.evaluate.ranking import CandidateList, RankingTable, candidate_lists, measure_rankings
from exp3rt_trt.evaluate.ratings import RatingTable, measure_ratings
from exp3rt_trt.evaluate.rows import RatingRow, read_ratings
from exp3rt_trt.evaluate.split import split_by_user
from exp3rt_trt.evaluate.texts import Texts

__all__ = [
    "Bootstrap",
    "CandidateList",
    "Estimate",
    "Explained",
    "ExplanationTable",
    "Failure",
    "Predictions",
    "Predictor",
    "Ranker",
    "RankingTable",
    "RatingRow",
    "RatingTable",
    "StudentRanking",
    "Texts",
    "blended",
    "calibrated",
    "candidate_lists",
    "collaborative_rating",
    "fit_als",
    "fit_blend",
    "global_mean",
    "measure_explanations",
    "measure_rankings",
    "measure_ratings",
    "read_interactions",
    "read_ratings",
    "score_lists",
    "split_by_user",
    "student",
    "user_item_bias",
    "without",
]
