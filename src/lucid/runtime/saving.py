"""Writing a compiled model to a file: for each target its choices, packed weights and object code.

Targets other than the model's own are lowered and compiled like it, and not run. Weights are made
and written one by one, so that a model is saved in little more memory than it has.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lucid.artifact.container import Writer, replacing
from lucid.artifact.contents import (
    MANIFEST,
    PLACES,
    PLAIN,
    TENSORS,
    WEIGHTS,
    ForTarget,
    Manifest,
    Size,
    ir_hash,
)
from lucid.artifact.places import Place
from lucid.artifact.places import to_json as places_to_json
from lucid.artifact.tensors import write_tensors
from lucid.codegen.kernels.admission import Admission
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.packing import Packed
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
from lucid.ir.resize import resized
from lucid.ir.text import print_graph
from lucid.ir.types import Shapes
from lucid.runtime.cache import generator_hash
from lucid.runtime.kernel_compiler import KernelCompiler
from lucid.runtime.plans import Plan, Snapshot, continued
from lucid.runtime.saved_weights import has_taps, places_of, transforms_of, write_packed
from lucid.runtime.stored import CACHES, object_key, packed_key
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
    written = [_write_target(writer, snapshot, target, weights, code) for target in targets]
    manifest = _manifest(snapshot, captured, sizes, [made for made, _ in written], weights)
    _write_sources(writer, snapshot, captured, manifest, written)
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
    written: Sequence[tuple[ForTarget, Iterable[Packed]]],
) -> None:
    """The tensors that the graphs read, and the tables that a checkpoint must have. With packed
    weights alone, those of them that no checkpoint brings; of those that lie in what is `written`
    for a target, where they do."""
    payload, tables = payload_of(snapshot), snapshot.source.state().tables
    names = [name for g, _ in captured for name in g.sources()]
    places: Mapping[str, Place] = {}
    if not manifest.has_plain:
        names = [*manifest.constants, *_read_on_host(snapshot)]
        places = places_of({*names, *tables}, written)
    if places:
        writer.add(PLACES, places_to_json(places).encode())
    unplaced = [name for name in dict.fromkeys([*names, *tables]) if name not in places]
    values = {name: tables[name] if name in tables else payload[name] for name in unplaced}
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
) -> tuple[ForTarget, list[Packed]]:
    """Choices for one target and, where they are wanted, packed weights and object code; and the
    weights that its programs use."""
    packed = weights != "plain"
    schedules = schedules_of(snapshot, target)
    caches = {name: int(getattr(target, name)) for name in CACHES}
    rows = [(shapes, chosen.to_json()) for shapes, chosen in schedules.items()]
    if not packed and not code:
        return ForTarget(target.name, caches, rows), []
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
        write_packed(writer, made, used, payload_of(snapshot), store, keys)
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
    return made, used


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
    return KernelCompiler(target).object_codes(kernels, snapshot.cache)
