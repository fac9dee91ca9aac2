"""`lucid.compile`: connects frontend, passes, code generation and runtime."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lucid import loading as _loading  # noqa: F401  # registers how compiled models are pickled
from lucid.codegen.scheduling.basis import Basis
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError, UnknownNameError, kind_of
from lucid.frontend.sources import Model
from lucid.frontend.tensor import Tensor
from lucid.ir.graph import Graph
from lucid.ir.types import ShapeArgument
from lucid.model_source import ModelSource
from lucid.runtime import log
from lucid.runtime.admission import check_policy
from lucid.runtime.arrays import register_converter
from lucid.runtime.cache import ObjectCache
from lucid.runtime.crash import CrashReporter, callers
from lucid.runtime.executable import CompiledModel
from lucid.runtime.kernel_compiler import Progress
from lucid.runtime.tune import Tuner
from lucid.runtime.tuning_log import TuningLog
from lucid.settings import (
    Threads,
    asked_threads,
    check_precision,
    check_threads,
    runnable_target,
)
from lucid.vision import IMAGENET, Preprocess

__all__ = ["CompileOptions", "CompiledModel", "compile"]

HOST_OPS = ("run", "refuse")
INPUTS = ("float32_nchw", "uint8_nhwc")

register_converter(Tensor, Tensor)


@dataclass(frozen=True)
class CompileOptions:
    """Options for inspection and experiments.

    `target`: a name such as "x86-64-v3", or "host". `disable`: passes to skip, in addition to those
    in LUCID_DISABLE. `kernels`: kernel names by patterns over module paths, such as
    {"layer1.*.conv2.conv": "winograd4x4"}. `schedule`: a complete schedule, used instead of the
    cost model. `debug`: topics to log to stderr (passes, schedule, kernels), in addition to those
    in LUCID_LOG. `host_ops`: with "run", ops that have no kernel run in NumPy between native calls
    (by their references, in float32), and a HostOpsWarning names them; with "refuse", compiling
    such a model raises UnsupportedError, which lists them. What only a later stage of a model shows
    is warned of, or refused, by the call that comes to it.
    """

    target: str = "host"
    disable: Sequence[str] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    debug: Sequence[str] = ()
    host_ops: str = "run"

    def disabled(self) -> list[str]:
        return [*self.disable, *filter(None, os.environ.get("LUCID_DISABLE", "").split(","))]


def compile(
    model: Any,
    input_shape: ShapeArgument | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    input: str = "float32_nchw",
    preprocess: Any = None,
    threads: Threads = "auto",
    precision: str = "fast",
    tune: bool = False,
    cache: bool = True,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
    queue_policy: str = "adaptive",
) -> CompiledModel:
    """Compile a model to native code: a module of `lucid.nn` or of PyTorch, the path of an ONNX
    file (or the result of `onnx.load`), or a graph. (The path of a .lucid file is compiled again;
    `lucid.load` opens it as it was compiled.)

    What it is compiled for is said in one of four ways. `input_shape`: (batch, channels, height,
    width), or whatever shape the one input has; of a model with several inputs a sequence of
    shapes, one for each. `shapes`: shapes by the names of inputs; those that the model has only one
    size of may be left out. `example_inputs`, `kwargs`: arrays or tensors by position and by name,
    as the model is called with (of PyTorch also lists, tuples and dicts of them); their shapes and
    dtypes are taken, not their elements. Nothing: a module is compiled at its first call, and a
    graph or a file for the sizes that it states. The schedule is chosen for these sizes, but every
    batch and image size runs that the model allows.

    Models of PyTorch and ONNX have any number of inputs and outputs, of any rank and dtype; floats
    are computed in float32, integers exactly, wrapping around. A batch runs in slices of 16 where
    its rows are independent (`explain` says so). Where sizes depend on the elements of tensors, the
    model runs in stages: the later ones are compiled in the calls that come to them.

    `input`: with "uint8_nhwc" the compiled model takes
    decoded images, uint8 (N, H, W, C), RGB or grey, and normalises them itself according to
    `preprocess`: a `lucid.vision.Preprocess`, or anything that `Preprocess.of` accepts; by default
    the model's own preprocessing, else ImageNet's. `threads`: the most that a call is done by;
    "auto" is as many as the process may use (docs/environment.md). Fewer are where more would not
    help. `precision`: "strict" disables algorithms with larger rounding errors (Winograd F(4x4),
    Strassen's products); "bf16" lets 1x1, windowed and linear layers multiply numbers rounded to
    bfloat16, where that is faster (sums, maps and all else stay float32). `tune`: measure the
    fastest kernel for each layer, for about a minute, or take it from the log of earlier
    measurements (in the cache folder; neither read nor written without `cache`); results are then
    bitwise reproducible for this compiled model only.
    `progress`: called with the current activity, the steps done, and their total. `queue_policy`:
    what becomes of a call while others run, "adaptive", "block" or "single-thread"
    (`CompiledModel.queue_policy`).

    Warns of ops that run in NumPy (HostOpsWarning, see `CompileOptions.host_ops`). Raises
    InputError, MissingPackageError, ModelFileError, TraceError, UnsupportedError, UnknownNameError,
    WeightsError.
    """
    check_precision(precision)
    chosen = CompileOptions() if options is None else options
    if not isinstance(chosen, CompileOptions):
        raise InputError(
            "options is a lucid.CompileOptions, such as lucid.CompileOptions(target='x86-64-v3'), "
            f"not {kind_of(chosen)}"
        )
    if chosen.host_ops not in HOST_OPS:
        raise UnknownNameError(f"host_ops is one of {', '.join(HOST_OPS)}, not {chosen.host_ops!r}")
    _check_sizes(input_shape, example_inputs, kwargs, shapes)
    log.enable(chosen.debug)
    target = runnable_target(chosen.target)
    how = Compilation(
        target,
        check_threads(threads),
        asked_threads(threads),
        precision,
        tune,
        cache,
        chosen,
        callers(progress),
        check_policy(queue_policy),
    )
    source = ModelSource(model, chosen.disabled(), images_of(model, input, preprocess))
    compiled = how.compiled(source)
    said = source.images or _said_of_images(model)
    if said is not None:  # for `Preprocess.of`, and kept by `save`
        compiled.metadata["preprocess"] = asdict(said)
    if example_inputs is not None or kwargs is not None:
        compiled.prepare_examples(tuple(example_inputs or ()), kwargs or {})
        return compiled
    if shapes is not None:
        input_shape = source.shapes_by_name(shapes)
    elif input_shape is None:
        input_shape = source.own_shapes()
    if input_shape is not None:
        compiled.prepare(source.input_shape(input_shape))
    return compiled


def _check_sizes(input_shape: Any, example_inputs: Any, kwargs: Any, shapes: Any) -> None:
    """Raises InputError unless inputs are described in one way, by what can describe them."""
    examples = "example_inputs" if example_inputs is not None else "kwargs"
    ways = {
        "input_shape": input_shape is not None,
        "shapes": shapes is not None,
        examples: example_inputs is not None or kwargs is not None,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} both say what the inputs are: give one of them")
    if example_inputs is not None and not isinstance(example_inputs, tuple | list):
        raise InputError(
            "example_inputs is a tuple of arrays or tensors, such as (x,), not "
            f"{kind_of(example_inputs)}"
        )
    for name, mapping in (("kwargs", kwargs), ("shapes", shapes)):
        if mapping is not None and not isinstance(mapping, Mapping):
            raise InputError(f"{name} is a mapping by the names of inputs, not {kind_of(mapping)}")


@dataclass(frozen=True)
class Compilation:
    """How models are compiled: all that `compile` is told of it, for a model and its stages."""

    target: Target
    threads: int
    threads_asked: int | None
    precision: str
    tune: bool
    cache: bool
    options: CompileOptions
    progress: Progress | None
    queue_policy: str

    def compiled(self, source: ModelSource) -> CompiledModel:
        """A compiled model without any plan."""
        options = self.options
        chosen_by = "given" if options.schedule is not None else "tuned" if self.tune else "model"
        compiled = CompiledModel(
            source,
            self._schedule,
            self.target,
            self.threads,
            self._objects(),
            self.progress,
            CrashReporter(
                source.captured,
                self.target.name,
                self.precision,
                self.threads,
                source.disable,
                options.kernels,
            ),
            Basis(self.precision, options.kernels, chosen_by),
            host_ops=options.host_ops,
        )
        compiled.threads_asked = self.threads_asked
        compiled.queue_policy = self.queue_policy
        stages, numbers = compiled.living_stages, itertools.count()
        first = weakref.proxy(compiled)  # whose source holds what follows

        def compile_stage(model: Model) -> CompiledModel:
            stage = stages[next(numbers)] = self._stage(model)
            stage.queue_policy = first.queue_policy
            return stage

        source.compile_stage = compile_stage
        return compiled

    def _stage(self, model: Model) -> CompiledModel:
        """A further stage of a model, compiled for the sizes that it states, if it does. A schedule
        that was given is the first stage's."""
        how = replace(self, options=replace(self.options, schedule=None))
        source = ModelSource(model, self.options.disabled())
        compiled, shapes = how.compiled(source), source.own_shapes()
        if shapes is not None:
            compiled.prepare(shapes)
        return compiled

    def _objects(self) -> ObjectCache | None:
        return ObjectCache() if self.cache else None

    def _schedule(self, graph: Graph, batch: int) -> Schedule:
        forced = self.options.kernels
        if self.options.schedule is not None:
            return self.options.schedule
        if not self.tune:
            return schedule(graph, self.target, batch, self.precision, forced)
        results = TuningLog() if self.cache else None
        tuner = Tuner(
            self.target,
            batch,
            self.threads,
            self.precision,
            cache=self._objects(),
            progress=self.progress,
        )
        return tuner.tune(graph, forced=forced, log=results).schedule


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
