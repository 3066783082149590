"""Grafana's dashboard asks for what the server exports, by names and by labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt.serve.options import ServeOptions
from serve_cases import BODY, PROFILE, served

parser = pytest.importorskip("prometheus_client.parser", reason="the extra test is not installed")

if TYPE_CHECKING:
    from exp3rt_trt import Reranker

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana" / "exp3rt_trt.json"
OF_PROMETHEUS = {"job", "instance"}  # labels that it adds


def test_the_dashboard_asks_for_what_is_exported(reranker: Reranker) -> None:
    with served(reranker, ServeOptions()) as client:
        assert client.post(PROFILE, json=BODY).status_code == 200
        assert client.post(PROFILE, json={}).status_code == 422
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked: set[str] = set()
    for expression in (target["expr"] for panel in panels for target in panel["targets"]):
        (name,) = re.findall(r"\b(?:exp3rt|process)_\w+", expression)
        assert name in labels
        asked.add(name)
        matched = re.findall(r'(\w+)=~?"', expression)
        grouped = [label for found in re.findall(r"by \((\w+)\)", expression) for label in found.split(", ")]
        assert {*matched, *grouped} <= labels[name] | OF_PROMETHEUS, expression
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in labels}
    ours = {name for name in families if name.startswith("exp3rt_") and not name.endswith("_created")}
    assert {re.sub(r"_bucket$", "", name) for name in asked} >= ours  # nothing is exported that nobody sees
