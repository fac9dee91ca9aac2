"""Graphs in the formats of others, one module a format: `onnx` (operators in `onnx_operators`)."""
