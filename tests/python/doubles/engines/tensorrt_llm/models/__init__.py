"""Of tensorrt_llm.models, only automodel is here."""
