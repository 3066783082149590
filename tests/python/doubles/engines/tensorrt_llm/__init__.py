"""A double of TensorRT-LLM 1.2.1, as far as the conversion uses it: it writes down what it got."""
