"""Tensors of the KServe v2 protocol, in JSON and behind it."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from exp3rt_trt.serve.faults import Fault
from exp3rt_trt.serve.schemas import InferRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exp3rt_trt.serve.schemas import Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, bytes]:
    """Return the JSON of a request, and the bytes behind it.

    Args:
        body: all of it.
        header_length: bytes of JSON, in decimal digits; None for all.

    Raises:
        Fault: 422 if the length is none.
        pydantic.ValidationError: if the JSON is no request.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and int(header_length) <= length):
            words = f"{HEADER_LENGTH}: not a number of bytes up to {length}"
            raise Fault(422, "invalid", words, HEADER_LENGTH)
        length = int(header_length)
    return InferRequest.model_validate_json(body[:length]), body[length:]


def strings(tensors: Sequence[Tensor], binary: bytes) -> dict[str, list[str]]:
    """Return the texts of tensors of datatype BYTES by name.

    Args:
        tensors: as the request has them.
        binary: what lies behind its JSON, tensor by tensor.

    Raises:
        Fault: 422 naming the tensor that has another type, another number of texts or no UTF-8.
    """
    texts: dict[str, list[str]] = {}
    for tensor in tensors:
        place = f"inputs.{tensor.name}"
        if tensor.datatype != "BYTES":
            raise Fault(422, "invalid", f"{place}: datatype is {tensor.datatype!r}, not 'BYTES'", place)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            found = _flat(tensor, place)
        else:
            if not isinstance(size, int) or not 0 <= size <= len(binary):
                raise Fault(
                    422, "invalid", f"{place}: binary_data_size is {size}, {len(binary)} are left", place
                )
            found, binary = _unpacked(binary[:size], place), binary[size:]
        count = 1
        for extent in tensor.shape:
            count *= extent
        if count != len(found):
            raise Fault(422, "invalid", f"{place}: shape {tensor.shape}, but {len(found)} texts", place)
        texts[tensor.name] = found
    return texts


def answer_bytes(
    header: dict[str, Any], outputs: Mapping[str, NDArray[np.float32]], binary: Mapping[str, bool]
) -> tuple[bytes, int]:
    """Return an answer, and how many of its bytes are JSON.

    Args:
        header: names of model and request.
        outputs: float32.
        binary: for each whether its data follow the JSON.
    """
    described, behind = [], []
    for name, array in outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if binary[name]:
            behind.append(array.astype("<f4").tobytes())
            tensor["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            tensor["data"] = array.ravel().tolist()
        described.append(tensor)
    text = json.dumps({**header, "outputs": described}).encode()
    return b"".join([text, *behind]), len(text)


def _flat(tensor: Tensor, place: str) -> list[str]:
    found: list[str] = []
    for each in tensor.data or ():
        found += [part for part in (each if isinstance(each, list) else [each]) if isinstance(part, str)]
        if isinstance(each, float):
            raise Fault(422, "invalid", f"{place}: data must be strings", place)
    return found


def _unpacked(binary: bytes, place: str) -> list[str]:
    found = []
    while binary:
        if len(binary) < 4:
            raise Fault(422, "invalid", f"{place}: {len(binary)} bytes are too few for a length", place)
        (size,) = struct.unpack_from("<I", binary)
        if len(binary) < 4 + size:
            raise Fault(422, "invalid", f"{place}: a text of {size} bytes, {len(binary) - 4} are left", place)
        try:
            found.append(binary[4 : 4 + size].decode())
        except UnicodeDecodeError as error:
            raise Fault(422, "invalid", f"{place}: not UTF-8: {error.reason}", place) from error
        binary = binary[4 + size :]
    return found
