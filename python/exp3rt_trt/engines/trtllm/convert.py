"""Makes TensorRT-LLM's checkpoint of a Hugging Face one; run by the build as a process of its own.

TensorRT-LLM's wheel carries what is needed but not its own scripts (examples/*/convert_checkpoint.py and
examples/quantization/quantize.py). Only safetensors are read and written; no code of a checkpoint is run.
"""

from __future__ import annotations

import argparse
import importlib

AWQ_GROUP = 128  # weights that share a scale
SEED = 1234


def main() -> None:
    """Convert, or measure and quantize where a format is given."""
    options = _parser().parse_args()
    if options.qformat is None:
        _convert(options)
    else:
        _quantize(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model_dir", "output_dir", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("qformat", "kv_cache_dtype", "calib_dataset"):
        parser.add_argument(f"--{name}")
    for name in ("calib_size", "calib_max_seq_length"):
        parser.add_argument(f"--{name}", type=int)
    return parser


def _convert(options: argparse.Namespace) -> None:
    models = importlib.import_module("tensorrt_llm.models.automodel")
    mapping = importlib.import_module("tensorrt_llm.mapping").Mapping()  # one GPU
    unquantized = importlib.import_module("tensorrt_llm.models.modeling_utils").QuantConfig()
    model = models.AutoModelForCausalLM.from_hugging_face(
        options.model_dir, options.dtype, mapping=mapping, quant_config=unquantized
    )
    model.save_checkpoint(options.output_dir, save_config=True)


def _quantize(options: argparse.Namespace) -> None:
    quantization = importlib.import_module("tensorrt_llm.quantization")
    quantization.quantize_and_export(
        model_dir=options.model_dir,
        output_dir=options.output_dir,
        device="cuda",
        dtype=options.dtype,
        qformat=options.qformat,
        kv_cache_dtype=options.kv_cache_dtype,
        calib_dataset=options.calib_dataset,
        calib_size=options.calib_size,
        calib_max_seq_length=options.calib_max_seq_length,
        tokenizer_max_seq_length=options.calib_max_seq_length,
        batch_size=1,
        awq_block_size=AWQ_GROUP,
        tp_size=1,
        pp_size=1,
        cp_size=1,
        seed=SEED,
    )


if __name__ == "__main__":
    main()
