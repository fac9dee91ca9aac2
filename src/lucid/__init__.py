"""Lucid compiles convolutional networks to native CPU code; it is written in Python alone.

model = lucid.models.resnest_50()
fast = lucid.compile(model, (1, 3, 224, 224))
logits = fast(images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lucid import models, nn, notebook, random, vision
from lucid.errors import (
    BatcherClosedError,
    CompileError,
    HostOpsWarning,
    ImageError,
    InputError,
    LucidError,
    MissingPackageError,
    ModelFileError,
    ParseError,
    QueueFullError,
    ShapeError,
    TraceError,
    UnknownNameError,
    UnsupportedError,
    VerifyError,
    WeightsError,
)
from lucid.frontend.tensor import Tensor
from lucid.frontend.trace import trace

if TYPE_CHECKING:
    from lucid.compiler import CompiledModel, CompileOptions, compile
    from lucid.loading import load
    from lucid.quantisation.quantiser import quantize
    from lucid.runtime.batcher import Batcher

notebook.register()

__version__ = "0.1.0"

__all__ = [
    "Batcher",
    "BatcherClosedError",
    "CompileError",
    "CompileOptions",
    "CompiledModel",
    "HostOpsWarning",
    "ImageError",
    "InputError",
    "LucidError",
    "MissingPackageError",
    "ModelFileError",
    "ParseError",
    "QueueFullError",
    "ShapeError",
    "Tensor",
    "TraceError",
    "UnknownNameError",
    "UnsupportedError",
    "VerifyError",
    "WeightsError",
    "compile",
    "load",
    "models",
    "nn",
    "quantize",
    "random",
    "trace",
    "vision",
]


def __getattr__(name: str) -> Any:
    """The compiler is imported when first asked for: LLVM takes a while to load."""
    if name in ("CompileOptions", "CompiledModel", "compile"):
        return getattr(import_module("lucid.compiler"), name)
    if name == "load":
        return import_module("lucid.loading").load
    if name == "Batcher":
        return import_module("lucid.runtime.batcher").Batcher
    if name == "quantize":
        return import_module("lucid.quantisation.quantiser").quantize
    raise AttributeError(f"module 'lucid' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those of the compiler too, and not what was imported to make them."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
