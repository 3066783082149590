"""Of tensorrt_llm.quantization, what the conversion uses; keyword arguments as the real one names them."""

from __future__ import annotations

import json
from pathlib import Path


def quantize_and_export(
    *,
    model_dir: str,
    device: str,
    calib_dataset: str,
    dtype: str,
    qformat: str,
    kv_cache_dtype: str | None,
    calib_size: int,
    batch_size: int,
    calib_max_seq_length: int,
    awq_block_size: int,
    output_dir: str,
    tp_size: int,
    pp_size: int,
    cp_size: int,
    seed: int,
    tokenizer_max_seq_length: int,
) -> None:
    assert (device, batch_size, tp_size, pp_size, cp_size) == ("cuda", 1, 1, 1, 1)
    assert calib_max_seq_length == tokenizer_max_seq_length
    assert awq_block_size > 0
    assert seed >= 0
    texts = (Path(calib_dataset) / "train.jsonl").read_text(encoding="utf-8").splitlines()
    found = {
        "dtype": dtype,
        "model_dir": model_dir,
        "qformat": qformat,
        "kv_cache_dtype": kv_cache_dtype,
        "texts": len(texts[:calib_size]),
    }
    Path(output_dir).mkdir()
    (Path(output_dir) / "config.json").write_text(json.dumps(found), encoding="utf-8")
