"""Engines for NVIDIA GPUs: TensorRT-LLM's own, and checkpoints for its LLM API."""
