"""Recommend in stages: a collaborative filter proposes, the student rates, and both together put in order."""

from exp3rt_trt.pipeline.blend import Blend
from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.pipeline.first_stage import ArrayFirstStage, Candidate, FirstStage
from exp3rt_trt.pipeline.implicit_stage import ImplicitFirstStage
from exp3rt_trt.pipeline.pipeline import Pipeline
from exp3rt_trt.pipeline.recommendations import Recommendations, RecommendedItem
from exp3rt_trt.profile_source import ProfileSource, ProfileTable

__all__ = [
    "ArrayFirstStage",
    "Blend",
    "Calibration",
    "Candidate",
    "FirstStage",
    "ImplicitFirstStage",
    "Pipeline",
    "ProfileSource",
    "ProfileTable",
    "Recommendations",
    "RecommendedItem",
]
