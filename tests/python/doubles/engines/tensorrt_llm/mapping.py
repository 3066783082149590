"""Of tensorrt_llm.mapping, what the conversion uses."""


class Mapping:
    """One GPU."""

    world_size = 1
