"""The engines that are compared, one module and one class each. Importing this registers all."""

from engines import lucid, mnn, ncnn, onnxruntime, openvino, peak, torch
from engines.base import Caller, Engine, Outputs

__all__ = [
    "Caller",
    "Engine",
    "Outputs",
    "lucid",
    "mnn",
    "ncnn",
    "onnxruntime",
    "openvino",
    "peak",
    "torch",
]
