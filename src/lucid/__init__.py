"""Lucid compiles convolutional networks to native CPU code; it is written in Python alone.

model = lucid.models.resnest_50()
fast = lucid.compile(model, (1, 3, 224, 224))
logits = fast(images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from lucid import models, nn, random, vision
    from lucid.compiler import CompileOptions, compile
    from lucid.emit import emit_c
    from lucid.frontend.tensor import Tensor
    from lucid.frontend.trace import trace
    from lucid.loading import load
    from lucid.quantisation.quantiser import quantize
    from lucid.runtime.batcher import Batcher
    from lucid.runtime.executable import CompiledModel

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
    "emit_c",
    "load",
    "models",
    "nn",
    "quantize",
    "random",
    "trace",
    "vision",
]


MODULES = {
    "Batcher": "lucid.runtime.batcher",
    "CompileOptions": "lucid.compiler",
    "CompiledModel": "lucid.runtime.executable",
    "Tensor": "lucid.frontend.tensor",
    "compile": "lucid.compiler",
    "emit_c": "lucid.emit",
    "load": "lucid.loading",
    "quantize": "lucid.quantisation.quantiser",
    "trace": "lucid.frontend.trace",
}


def __getattr__(name: str) -> Any:
    """All is imported when first asked for: who loads a compiled model pays for no compiler."""
    try:
        if name in MODULES:
            return getattr(import_module(MODULES[name]), name)
        if name in ("models", "nn", "random", "vision"):
            return import_module(f"lucid.{name}")
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.startswith("lucid"):
            raise
        raise MissingPackageError(
            f"lucid.{name} takes the package {problem.name}, which is not installed: pip install "
            "lucid-compiler brings all that it needs"
        ) from problem
    raise AttributeError(f"module 'lucid' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those of the compiler too, and not what was imported to make them."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
