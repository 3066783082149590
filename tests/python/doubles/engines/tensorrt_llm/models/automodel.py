"""Of tensorrt_llm.models.automodel, what the conversion uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorrt_llm.mapping import Mapping
    from tensorrt_llm.models.modeling_utils import QuantConfig


class AutoModelForCausalLM:
    """Reads a Hugging Face folder, and writes a checkpoint that says what it read."""

    def __init__(self, found: dict[str, object]) -> None:
        self._found = found

    @staticmethod
    def from_hugging_face(
        hf_model_or_dir: str, dtype: str = "auto", *, mapping: Mapping, quant_config: QuantConfig
    ) -> AutoModelForCausalLM:
        assert mapping.world_size == 1
        assert quant_config.quant_algo is None
        files = sorted(path.name for path in Path(hf_model_or_dir).iterdir())
        return AutoModelForCausalLM({"dtype": dtype, "model_dir": hf_model_or_dir, "files": files})

    def save_checkpoint(self, output_dir: str, save_config: bool = True) -> None:
        assert save_config
        Path(output_dir).mkdir()
        (Path(output_dir) / "config.json").write_text(json.dumps(self._found), encoding="utf-8")
