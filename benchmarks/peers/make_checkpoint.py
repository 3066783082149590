"""Makes the models that peers need from a base student.

    python benchmarks/peers/make_checkpoint.py --out .cache/peers/smollm2-135m

writes a checkpoint directory OUT in bf16, and the GGUF files OUT.bf16.gguf, OUT.fp16.gguf (OpenVINO reads
no bf16) and OUT.q4_1.gguf (the file itself). The weights are those that our engine is built from. Needs the
package and the extra [test].
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from exp3rt_trt.engines.sources import resolve
from gguf.quants import dequantize, quantize
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

KINDS = {"bf16": gguf.GGMLQuantizationType.BF16, "fp16": gguf.GGMLQuantizationType.F16}
FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "fp16": gguf.LlamaFileType.MOSTLY_F16}
OWN_KEYS = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")


def write_checkpoint(source: Path, out: Path) -> None:
    """Write a Hugging Face checkpoint directory in bf16 with the weights and the tokenizer of a GGUF file."""
    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**where)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # the one read refuses to be saved
    model.load_state_dict(read.state_dict())
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(**where).save_pretrained(out)


def write_gguf(source: Path, out: Path, dtype: str) -> None:
    """Write a GGUF file again with its matrices in `dtype`; vectors stay in float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    writer.add_file_type(FILE_TYPES[dtype])
    for field in reader.fields.values():
        if not field.name.startswith(OWN_KEYS):
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = KINDS[dtype] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a base student, or a GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="directory; the GGUF files are put beside it")
    args = parser.parse_args()
    source = resolve(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(source, args.out)
    for dtype in KINDS:
        write_gguf(source, args.out.with_name(f"{args.out.name}.{dtype}.gguf"), dtype)
    shutil.copyfile(source, args.out.with_name(f"{args.out.name}.q4_1.gguf"))


if __name__ == "__main__":
    main()
