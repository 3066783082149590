"""The command `exp3rt-trt`."""
