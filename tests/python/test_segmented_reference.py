"""benchmarks/segmented_reference.py on a tiny student with a random adapter."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.segments import LAYOUT_FILE, SegmentLayout
from rating_files import write_ratings

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECIPE = """
base = "{base}"
work = "work"
[data]
ratings = ["ratings.jsonl"]
test_share = 0.3
"""


@pytest.fixture
def adapter(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> Path:
    """Make an adapter that changes a segmented student a lot, beside its recipe."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft", reason="needs the extra [distill]")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = tiny_checkpoint("llama")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path)
    (tmp_path / LAYOUT_FILE).write_text(SegmentLayout("segmented", 1000, 1600).to_json(), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(base=base), encoding="utf-8")
    write_ratings(tmp_path / "ratings.jsonl", 1)
    return tmp_path


def test_engines_are_compared_with_flat_prompts(
    adapter: Path, tiny_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("segmented_reference")
    engines, out = [str(tmp_path / dtype) for dtype in ("fp32", "bf16")], tmp_path / "findings.json"
    for engine in engines:
        build_engine(tiny_checkpoint("llama"), Path(engine), Path(engine).name, adapter=adapter)
    script.main([str(adapter), "--engines", *engines, "--users", "2", "--items", "3", "--json", str(out)])
    findings = json.loads(out.read_text(encoding="utf-8"))
    assert findings["pairs"] == 6
    kinds = [(engine["dtype"], engine["items"]) for engine in findings["engines"]]
    assert kinds == [("fp32", "fp32"), ("fp32", "int8"), ("bf16", "bf16"), ("bf16", "int8")]
    exact, *others = findings["engines"]
    assert exact["max"] < 1e-5 < findings["standard_deviation"]
    assert all(exact["max"] < engine["max"] < 0.5 for engine in others)
    assert exact["kendall_tau"] == pytest.approx([1.0, 1.0])
    assert all(len(engine["kendall_tau"]) == 2 for engine in others)
