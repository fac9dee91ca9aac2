"""Writing a compiled model to a file: for each target its choices, packed weights and object code.

Targets other than the model's own are lowered and compiled like it, and not run. Weights are made
and written one by one, so that a model is saved in little more memory than it has.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lucid.artifact.container import Writer, replacing
from lucid.artifact.contents import (
    MANIFEST,
    PLAIN,
    TENSORS,
    WEIGHTS,
    ForTarget,
    Manifest,
    Size,
    ir_hash,
)
from lucid.artifact.tensors import Declaration, write_tensors
from lucid.codegen.kernels.admission import Admission
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.filter_transform import FilterTransform
from lucid.codegen.kernels.packing import Packed, Winograd
from lucid.codegen.kernels.winograd_panels import TAPS
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import versions
from lucid.codegen.lowering import Lowered, lower_parts
from lucid.codegen.program.program import Program
from lucid.codegen.program.tables import tables_of
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError, LucidError, UnknownNameError, WeightsError
from lucid.ir import recipe
from lucid.ir.graph import Graph, Parameter
from lucid.ir.ops.base import Array
from lucid.ir.resize import resized
from lucid.ir.text import print_graph
from lucid.ir.types import Shapes
from lucid.runtime.cache import generator_hash
from lucid.runtime.kernel_compiler import KernelCompiler
from lucid.runtime.planning import PLANNING
from lucid.runtime.plans import Plan, Snapshot, continued
from lucid.runtime.stored import CACHES, object_key, packed_key, padded
from lucid.runtime.stored_programs import Written, to_json
from lucid.runtime.weights import WeightStore

THREADS = (1, 2, 4, 8)
"""Numbers of threads that programs are stored for, besides the model's own: a process that loads
the file takes the least that is not below its own."""


def save(
    snapshot: Snapshot,
    path: str | os.PathLike[str],
    targets: Sequence[str] | None,
    weights: str | None = None,
) -> None:
    """Write a model to a file, which appears when it is whole. Raises InputError, UnknownNameError,
    WeightsError, OSError."""
    weights = weights or least_weights(snapshot)
    if weights not in WEIGHTS:
        raise UnknownNameError(f"weights is one of {', '.join(WEIGHTS)}, not {weights!r}")
    if weights == "compact" and not keeps_taps(snapshot):
        require_plain(snapshot)
    chosen = targets_of(snapshot, targets)
    with replacing(Path(path)) as file:
        write(snapshot, file, chosen, weights)


def targets_of(snapshot: Snapshot, names: Sequence[str] | None) -> list[Target]:
    """The targets of these names, each once; by default the one compiled for. Raises InputError,
    UnknownNameError."""
    if names is None:
        return [snapshot.target]
    if isinstance(names, str) or not names:
        raise InputError(f"targets is a list of names of targets, not {names!r}")
    named = dict.fromkeys(map(Target.named, names))
    return list(dict.fromkeys(_own(target, snapshot.target) for target in named))


def _own(target: Target, own: Target) -> Target:
    """The model's own target for one of its name: as far as it is known what its caches are."""
    return own if target.name == own.name else target


def write(
    snapshot: Snapshot,
    file: IO[bytes],
    targets: Sequence[Target],
    weights: str,
    code: bool = True,
) -> None:
    """Write a model to a file that can be sought in. `weights`: one of WEIGHTS. `code`: with object
    code, which can be made anew. Raises WeightsError for weights that the model does not have."""
    writer = Writer(file)
    captured = _captured(snapshot)
    if weights in PLAIN or any(target != snapshot.target for target in targets):
        require_plain(snapshot)
    sizes = []
    for number, (graph, fused) in enumerate(captured):
        types = tuple(map(str, graph.input_types()))
        size = Size(graph.input_shapes(1), types, f"captured.{number}", f"fused.{number}")
        writer.add(size.captured, print_graph(graph).encode())
        writer.add(size.fused, print_graph(fused).encode())
        sizes.append(size)
    made = [_write_target(writer, snapshot, target, weights, code) for target in targets]
    manifest = _manifest(snapshot, captured, sizes, made, weights)
    _write_sources(writer, snapshot, captured, manifest)
    writer.add(MANIFEST, manifest.to_json().encode())
    writer.finish()


# -- graphs -----------------------------------------------------------------------------------


def _captured(snapshot: Snapshot) -> list[tuple[Graph, Graph]]:
    """The graphs before the passes and after them, that of the first plan first; one for all the
    shapes that it serves."""
    fused = {tuple(p.graph.input_types()): (s, p.graph) for s, p in snapshot.plans.items()}
    return [(snapshot.source.stage(shapes, "captured"), graph) for shapes, graph in fused.values()]


def is_any_size(snapshot: Snapshot, graph: Graph) -> bool:
    """Whether the graph of one image size tells that of others: whether its ops alone, over inputs
    of another size, are the graph that the model is then traced to. An axis that ops let differ
    only together with one of another input stays as it is.

    Two other sizes are tried, a larger one, and a smaller one that is odd, which differ in all axes
    that the ops let differ. What depends on the size (where a window begins, a table of positions)
    shows in the text of the graph. A size that neither takes, an odd one, tells nothing against it.
    """
    own = graph.input_shapes(1)
    axes = [
        (i, axis)
        for i, kind in enumerate(graph.input_types())
        for axis in range(kind.rank)
        if axis not in kind.batch_axes()
    ]
    free = [place for place in axes if _resized(graph, _with(own, {place: 32}))]
    larger = {place: 32 * (1 + n) for n, place in enumerate(free)}
    smaller = {(i, axis): -(own[i][axis] // 4 + 2 * n | 1) for n, (i, axis) in enumerate(free)}
    sizes = [_with(own, change) for change in (larger, smaller)]
    if not free or any(size < 1 for shape in sizes[1] for size in shape):
        return False
    traced = [_traced(snapshot, shapes) for shapes in sizes]
    return any(traced) and traced == [_resized(graph, shapes) for shapes in sizes]


def _with(own: Shapes, change: Mapping[tuple[int, int], int]) -> Shapes:
    """The shapes with axes, given as (input, axis), that are so much longer."""
    return tuple(
        tuple(size + change.get((i, axis), 0) for axis, size in enumerate(shape))
        for i, shape in enumerate(own)
    )


def _resized(graph: Graph, shapes: Shapes) -> str | None:
    """The text of the graph for another size; None where its ops do not take it."""
    try:
        return print_graph(resized(graph, shapes))
    except LucidError:
        return None


def _traced(snapshot: Snapshot, shapes: Shapes) -> str | None:
    """The text of the graph that the model is traced to; None where it takes no such size."""
    try:
        return print_graph(snapshot.source.stage(shapes, "captured"))
    except Exception:  # a user's forward raises what it likes
        return None


# -- tensors ----------------------------------------------------------------------------------


def store_of(snapshot: Snapshot) -> WeightStore:
    return next(iter(snapshot.plans.values())).weights


def payload_of(snapshot: Snapshot) -> Mapping[str, Any]:
    return store_of(snapshot).payload


def _write_sources(
    writer: Writer,
    snapshot: Snapshot,
    captured: Sequence[tuple[Graph, Graph]],
    manifest: Manifest,
) -> None:
    """The tensors that the graphs read, and the tables that a checkpoint must have. With packed
    weights alone, those of them that no checkpoint brings."""
    payload = payload_of(snapshot)
    names = dict.fromkeys(name for g, _ in captured for name in g.sources())
    if not manifest.has_plain:
        names = dict.fromkeys([*manifest.constants, *_read_on_host(snapshot)])
    values = {name: payload[name] for name in names}
    values |= snapshot.source.state().tables
    declared = {n: v if hasattr(v, "dtype") else np.asarray(v) for n, v in values.items()}
    with writer.section(TENSORS) as sink:
        write_tensors(sink, declared, (np.asarray(v) for v in values.values()))


def _read_on_host(snapshot: Snapshot) -> Iterator[str]:
    """The tensors that nodes on the host read, and outputs that nothing computes."""
    for plan in snapshot.plans.values():
        read = [value for step in plan.steps for value in getattr(step, "known", ())]
        for value in read if plan.whole else (*read, *plan.graph.outputs):
            if isinstance(value, Parameter):
                yield from (source.name for source in recipe.sources(value.recipe))


def has_plain(snapshot: Snapshot) -> bool:
    """Whether the model has its weights as its graphs read them: one that was loaded from a file
    with packed weights alone has not, until `load_weights` brings some."""
    payload = payload_of(snapshot)
    names = (name for plan in snapshot.plans.values() for name in plan.graph.sources())
    return all(name in payload for name in names)


def keeps_taps(snapshot: Snapshot) -> bool:
    """Whether the model comes from a file that has what its panels are made of."""
    programs = (program for plan in snapshot.plans.values() for program in plan.programs)
    panels = (w for p in programs for w in p.weights.values() if has_taps(w))
    store = store_of(snapshot)
    return all(store.taps(w) is not None for w in panels)


def least_weights(snapshot: Snapshot) -> str:
    """How a file holds weights for its targets in the least room that the model allows."""
    return "compact" if has_plain(snapshot) or keeps_taps(snapshot) else "packed"


def require_plain(snapshot: Snapshot) -> None:
    """Raises WeightsError where the model has its weights for its own target alone."""
    if not has_plain(snapshot):
        raise WeightsError(
            f"{snapshot.source.name} comes from a file that holds its weights only as packed for "
            f"{snapshot.target.name}, so it can be saved for that alone, without plain weights; "
            "save the compiled model itself with weights='both', and load that"
        )


def _version() -> str:
    """Lucid's own, as it was installed; for people to read."""
    try:
        return importlib.metadata.version("lucid-compiler")
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _manifest(
    snapshot: Snapshot,
    captured: Sequence[tuple[Graph, Graph]],
    sizes: list[Size],
    made: list[ForTarget],
    weights: str,
) -> Manifest:
    state = snapshot.source.state()
    read = dict.fromkeys(name for g, _ in captured for name in g.sources())
    first = next(iter(snapshot.plans))
    return Manifest(
        made_by={
            "lucid": _version(),
            "ir": ir_hash(),
            "generator": generator_hash(),
            "llvm": versions(),
        },
        name=snapshot.source.name,
        dtypes=captured[0][0].input_dtypes(),
        precision=snapshot.basis.precision,
        kernels=dict(snapshot.basis.forced),
        chosen_by=snapshot.basis.source,
        disable=list(snapshot.source.disable),
        input_shapes=first,
        any_size=is_any_size(snapshot, captured[0][0]),
        state=dict(state.shapes),
        tables=list(state.tables),
        constants=[name for name in read if name not in state.shapes],
        sizes=sizes,
        targets=made,
        metadata=dict(snapshot.metadata),
        weights=weights,
        structure=snapshot.source.structure.to_json() if snapshot.source.structure else {},
    )


# -- targets ----------------------------------------------------------------------------------


def _write_target(
    writer: Writer, snapshot: Snapshot, target: Target, weights: str, code: bool
) -> ForTarget:
    """Choices for one target and, where they are wanted, packed weights and object code."""
    packed = weights != "plain"
    schedules = schedules_of(snapshot, target)
    caches = {name: getattr(target, name) for name in CACHES}
    rows = [(shapes, chosen.to_json()) for shapes, chosen in schedules.items()]
    if not packed and not code:
        return ForTarget(target.name, caches, rows)
    programs = [
        program
        for shapes, plan in snapshot.plans.items()
        for program in programs_of(snapshot, plan, schedules[shapes], target)
    ]
    used = [w for program in programs for w in program.weights.values()]
    made = ForTarget(
        target.name,
        caches,
        rows,
        f"packed.{target.name}" if packed else None,
        f"objects.{target.name}" if code else None,
        f"programs.{target.name}" if packed and code else None,
        f"taps.{target.name}" if weights == "compact" and any(map(has_taps, used)) else None,
    )
    transforms = transforms_of(used) if made.taps and made.objects else []
    if made.packed:
        store = store_of(snapshot) if target == snapshot.target else None
        keys = {spec.called().text: object_key(spec, target) for spec in transforms}
        _write_packed(writer, made, used, payload_of(snapshot), store, keys)
    if made.objects:
        kernels = [
            Driver(),
            Admission(),
            *transforms,
            *(k for p in programs for k in (*p.kernels(), *p.may_need)),
        ]
        _write_objects(writer, made.objects, snapshot, target, list(dict.fromkeys(kernels)))
    if made.programs:
        known = Known(set(map(packed_key, used)), set(kernels))
        written = _tables(snapshot, schedules, target, known)
        text = to_json(written, {k.called(): object_key(k, target) for k in kernels})
        writer.add(made.programs, text.encode())
    return made


class Known(NamedTuple):
    """What a file has for a target: keys of packed weights, and kernels."""

    weights: set[str]
    kernels: set[KernelSpec]


def _tables(
    snapshot: Snapshot, schedules: Mapping[Shapes, Schedule], target: Target, known: Known
) -> Iterator[Written]:
    """The tables of the plans that are one program, for several numbers of threads each; those
    that need other weights or kernels than the file has are left out."""
    for shapes, plan in snapshot.plans.items():
        if plan.whole is None:
            continue
        for threads in sorted({*THREADS, snapshot.threads}):
            (program,) = programs_of(snapshot, plan, schedules[shapes], target, threads)
            keys = {name: packed_key(w) for name, w in program.weights.items()}
            if known.weights.issuperset(keys.values()) and known.kernels.issuperset(
                program.kernels()
            ):
                tables = tables_of(program)
                yield Written(shapes, plan.graph, plan.batch, threads, tables, keys)


def programs_of(
    snapshot: Snapshot, plan: Plan, chosen: Schedule, target: Target, threads: int | None = None
) -> list[Program]:
    """Those of a plan's regions for a target and so many threads, by default the model's own."""
    threads = threads or snapshot.threads
    if (target, threads) == (snapshot.target, snapshot.threads):
        return plan.programs
    parts = lower_parts(plan.graph, chosen, target, plan.batch, threads)
    return [part.program for part in parts if isinstance(part, Lowered)]


def schedules_of(snapshot: Snapshot, target: Target) -> dict[Shapes, Schedule]:
    """The choices for each plan; for another target those of its cost model."""
    if target == snapshot.target or snapshot.basis.source == "given":
        return {shapes: plan.schedule for shapes, plan in snapshot.plans.items()}

    def choose(graph: Graph, batch: int) -> Schedule:
        return schedule(graph, target, batch, snapshot.basis.precision, snapshot.basis.forced)

    chosen: dict[Shapes, Schedule] = {}
    for shapes, plan in snapshot.plans.items():
        first = next(iter(chosen.values()), None)
        chosen[shapes] = continued(first, plan.graph, plan.batch, choose)
    return chosen


def _write_packed(
    writer: Writer,
    made: ForTarget,
    used: Iterable[Packed],
    payload: Mapping[str, Any],
    store: WeightStore | None,
    transforms: Mapping[str, str],
) -> None:
    """Write the weights that programs use, which are packed in `store` or, without one, now; or
    what loading makes them of, and by which code: its keys, by its names."""
    weights = {packed_key(w): w for w in used}
    if made.taps:
        panels = {key: w for key, w in weights.items() if has_taps(w)}
        _write_taps(writer, made.taps, panels, payload, store, transforms)
        weights = {key: w for key, w in weights.items() if key not in panels}
    declared = {
        key: Declaration((padded(w),), str(dtype(w.dtype).storage)) for key, w in weights.items()
    }
    assert made.packed is not None
    with writer.section(made.packed) as sink:
        write_tensors(sink, declared, (packed_array(w, payload, store) for w in weights.values()))


def has_taps(packed: Packed) -> bool:
    """Whether a weight is panels that loading makes of fewer numbers."""
    packing = packed.packing
    is_winograd = isinstance(packing, Winograd) and packing.dtype == packed.dtype
    return is_winograd and packed.recipe is not None


def transforms_of(weights: Iterable[Packed]) -> list[FilterTransform]:
    """The kernels that make those of the weights that are panels."""
    pairs = ((w.packing, w.dtype) for w in weights if has_taps(w))
    made = (FilterTransform(p.m, kind) for p, kind in pairs if isinstance(p, Winograd))
    return list(dict.fromkeys(made))


def _write_taps(
    writer: Writer,
    section: str,
    panels: Mapping[str, Packed],
    payload: Mapping[str, Any],
    store: WeightStore | None,
    transforms: Mapping[str, str],
) -> None:
    """Write what panels are made of, [panel][tap][column], the m of each, and the keys of the code
    that makes them."""
    declared: dict[str, Declaration] = {}
    metadata = dict(transforms)
    made_of: list[Packed] = []
    for key, packed in panels.items():
        packing = packed.packing
        assert isinstance(packing, Winograd)
        taps = dataclasses.replace(packed, packing=packing.taps)
        columns = packing.columns(packed.shape)
        shape = taps.elements // (TAPS * columns), TAPS, columns
        declared[key] = Declaration(shape, str(dtype(packed.dtype).storage))
        metadata[key] = str(packing.m)
        made_of.append(taps)
    kept = [store.taps(w) if store is not None else None for w in panels.values()]
    values = (
        array if array is not None else packed_array(taps, payload, None)[: taps.elements]
        for array, taps in zip(kept, made_of, strict=True)
    )
    with writer.section(section) as sink:
        write_tensors(sink, declared, values, metadata)


def packed_array(packed: Packed, payload: Mapping[str, Any], store: WeightStore | None) -> Array:
    """A packed weight, with zeros up to its padded length."""
    out = np.zeros(padded(packed), dtype(packed.dtype).storage)
    if store is not None:
        out[: packed.elements] = store.array(packed)
    elif packed.recipe is not None:
        value = recipe.evaluate(packed.recipe, lambda name: np.asarray(payload[name]))
        packed.pack(value, out[: packed.elements])
    return out


def _write_objects(
    writer: Writer, section: str, snapshot: Snapshot, target: Target, kernels: list[KernelSpec]
) -> None:
    codes = object_codes(snapshot, kernels, target)
    arrays = {object_key(k, target): np.frombuffer(code, np.uint8) for k, code in codes.items()}
    with writer.section(section) as sink:
        write_tensors(sink, arrays, arrays.values())


def object_codes(
    snapshot: Snapshot, kernels: Sequence[KernelSpec], target: Target
) -> dict[KernelSpec, bytes]:
    """The object code of kernels for any target, from the cache or compiled."""
    with PLANNING:
        return KernelCompiler(target).object_codes(kernels, snapshot.cache)
