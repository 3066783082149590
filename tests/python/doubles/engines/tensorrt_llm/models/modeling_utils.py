"""Of tensorrt_llm.models.modeling_utils, what the conversion uses."""


class QuantConfig:
    """No quantization."""

    quant_algo = None
