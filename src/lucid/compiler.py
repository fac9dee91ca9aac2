"""`lucid.compile`: connects frontend, passes, code generation and runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lucid import loading as _loading  # noqa: F401  # registers how compiled models are pickled
from lucid.codegen.scheduling.explain import Basis
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.errors import InputError, UnknownNameError, kind_of
from lucid.frontend.tensor import Tensor
from lucid.ir.graph import Graph
from lucid.ir.types import ShapeArgument
from lucid.model_source import ModelSource
from lucid.runtime import log
from lucid.runtime.arrays import register_converter
from lucid.runtime.cache import ObjectCache
from lucid.runtime.crash import CrashReporter, callers
from lucid.runtime.executable import CompiledModel
from lucid.runtime.library import Progress
from lucid.runtime.tune import Tuner
from lucid.runtime.tuning_log import TuningLog
from lucid.settings import check_precision, check_threads, runnable_target
from lucid.vision import IMAGENET, Preprocess

__all__ = ["CompileOptions", "CompiledModel", "compile"]

INPUTS = ("float32_nchw", "uint8_nhwc")

register_converter(Tensor, Tensor)


@dataclass(frozen=True)
class CompileOptions:
    """Options for inspection and experiments.

    `target`: a name such as "x86-64-v3", or "host". `disable`: passes to skip, in addition to those
    in LUCID_DISABLE. `kernels`: kernel names by patterns over module paths, such as
    {"layer1.*.conv2.conv": "winograd4x4"}. `schedule`: a complete schedule, used instead of the
    cost model. `debug`: topics to log to stderr (passes, schedule, kernels), in addition to those
    in LUCID_LOG.
    """

    target: str = "host"
    disable: Sequence[str] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    debug: Sequence[str] = ()

    def disabled(self) -> list[str]:
        return [*self.disable, *filter(None, os.environ.get("LUCID_DISABLE", "").split(","))]


def compile(
    model: Any,
    input_shape: ShapeArgument | None = None,
    *,
    input: str = "float32_nchw",
    preprocess: Any = None,
    threads: int | None = None,
    precision: str = "fast",
    tune: bool = False,
    cache: bool = True,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model to native code: a module of `lucid.nn` or of PyTorch, the path of an ONNX
    file (or the result of `onnx.load`), or a graph. (The path of a .lucid file is compiled again;
    `lucid.load` opens it as it was compiled.)

    `input_shape`: (batch, channels, height, width); of a model with several inputs a sequence of
    shapes, one for each. The schedule is chosen for this shape, but
    every batch and image size runs. Without it, a module is compiled at its first call, and a graph
    or a file for the size that it states. `input`: with "uint8_nhwc" the compiled model takes
    decoded images, uint8 (N, H, W, C), RGB or grey, and normalises them itself according to
    `preprocess`: a `lucid.vision.Preprocess`, or anything that `Preprocess.of` accepts; by default
    the model's own preprocessing, else ImageNet's. `threads`: by default as many as the process may
    use (docs/environment.md). `precision`: "strict" disables algorithms with larger rounding errors
    (Winograd F(4x4)). `tune`: measure the fastest kernel for each layer, for about a minute, or
    take it from the log of earlier measurements (in the cache folder; neither read nor written
    without `cache`); results are then bitwise reproducible for this compiled model only.
    `progress`: called with the current activity, the steps done, and their total.
    Raises InputError, TraceError, UnsupportedError, UnknownNameError, WeightsError.
    """
    check_precision(precision)
    chosen = CompileOptions() if options is None else options
    if not isinstance(chosen, CompileOptions):
        raise InputError(
            "options is a lucid.CompileOptions, such as lucid.CompileOptions(target='x86-64-v3'), "
            f"not {kind_of(chosen)}"
        )
    log.enable(chosen.debug)
    target = runnable_target(chosen.target)
    count = check_threads(threads)
    kept = ObjectCache() if cache else None
    report = callers(progress)

    def schedule_for(graph: Graph, batch: int) -> Schedule:
        forced = chosen.kernels
        if chosen.schedule is not None:
            return chosen.schedule
        if not tune:
            return schedule(graph, target, batch, precision, forced)
        results = TuningLog() if cache else None
        tuner = Tuner(target, batch, count, precision, cache=kept, progress=report)
        return tuner.tune(graph, forced=forced, log=results).schedule

    source = ModelSource(model, chosen.disabled(), images_of(model, input, preprocess))
    reporter = CrashReporter(
        source.captured, target.name, precision, count, source.disable, chosen.kernels
    )
    chosen_by = "given" if chosen.schedule is not None else "tuned" if tune else "model"
    basis = Basis(precision, chosen.kernels, chosen_by)
    compiled = CompiledModel(source, schedule_for, target, count, kept, report, reporter, basis)
    compiled.threads_asked = threads
    said = source.images or _said_of_images(model)
    if said is not None:  # for `Preprocess.of`, and kept by `save`
        compiled.metadata["preprocess"] = asdict(said)
    if input_shape is None:
        input_shape = source.own_shapes()
    if input_shape is not None:
        compiled.prepare(source.input_shape(input_shape))
    return compiled


def images_of(model: Any, input: str, preprocess: Any) -> Preprocess | None:
    """How a model that is compiled for uint8 images is to normalise them; None for one that takes
    float32. Raises UnknownNameError, InputError."""
    if input not in INPUTS:
        raise UnknownNameError(f"input is one of {', '.join(INPUTS)}, not {input!r}")
    if input != INPUTS[-1]:
        if preprocess is not None:
            raise InputError(
                f"preprocess is for input={INPUTS[-1]!r}: float32 arrays are taken as they are"
            )
        return None
    if preprocess is not None:
        return Preprocess.of(preprocess)
    return Preprocess.find(model) or IMAGENET


def _said_of_images(model: Any) -> Preprocess | None:
    """What the model says of its images; None where that is nothing, or cannot be followed."""
    try:
        return Preprocess.find(model)
    except InputError:
        return None
