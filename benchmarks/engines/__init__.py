"""The engines that are compared, one module and one class each. Importing this registers all."""

from engines import lucid, mnn, ncnn, onnxruntime, openvino, peak, torch
from engines.base import Caller, Engine

__all__ = [
    "Caller",
    "Engine",
    "lucid",
    "mnn",
    "ncnn",
    "onnxruntime",
    "openvino",
    "peak",
    "torch",
]
