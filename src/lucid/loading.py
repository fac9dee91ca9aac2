"""`lucid.load`: compiled models from files, and from pickles, which are such files in memory."""

from __future__ import annotations

import copyreg
import functools
import io
import logging
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lucid.artifact.container import Container
from lucid.artifact.contents import Artifact, ir_hash, without_plain
from lucid.codegen.scheduling.basis import Basis
from lucid.codegen.target import Target
from lucid.errors import InputError, ModelFileError, ParseError, kind_of
from lucid.ir.structure import Structure
from lucid.runtime import log
from lucid.runtime.admission import check_policy
from lucid.runtime.cache import ObjectCache, generator_hash
from lucid.runtime.crash import CrashReporter, callers
from lucid.runtime.executable import CompiledModel
from lucid.runtime.plans import Saved
from lucid.runtime.processors import default_threads
from lucid.runtime.stored import StoredObjects, loaded_target
from lucid.runtime.stored_panels import PackedWeights, StoredWeights
from lucid.runtime.stored_programs import ready_plans
from lucid.settings import asked_threads, check_threads, runnable_target

if TYPE_CHECKING:
    from lucid.artifact.contents import ForTarget
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.ir.graph import Graph, State
    from lucid.ir.passes import RewriteLog
    from lucid.ir.stage import Rest
    from lucid.ir.types import Shapes
    from lucid.model_source import ModelSource
    from lucid.runtime.kernel_compiler import Progress
    from lucid.settings import Threads

__all__ = ["load"]

load_log = logging.getLogger("lucid.kernels")


def load(
    path: str | os.PathLike[str],
    threads: Threads = "auto",
    *,
    target: str | None = None,
    code: bool = True,
    cache: bool = True,
    progress: Progress | None = None,
    queue_policy: str = "adaptive",
) -> CompiledModel:
    """Load a model that `CompiledModel.save` wrote; results are bitwise identical.

    `threads`: the most that a call is done by; "auto" is as many as the process may use
    (docs/environment.md), and fewer are where more would not help; files do not record it.
    `target`: by default the best that the file has code for and this machine supports, else this
    machine's own, for which the model is compiled, with a warning. `code`: with False, no object
    code is taken from the file, only graphs, choices and weights; it still has to be trusted, as
    checksums detect damage, not tampering (docs/security.md). `cache`, `progress` and
    `queue_policy` as in `lucid.compile`.

    Packed weights are mapped read-only, so that processes that load the same file share them:
    never write to a file that is in use, but replace it, as `save` does. What a compact file lacks
    is made in the cache folder, and shared too, unless `cache` is False. Raises ModelFileError for
    a file that is damaged, truncated, of another format, or whose only weights are packed for other
    targets or by another version of Lucid; InputError, UnknownNameError, OSError.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"lucid.load takes the path of a .lucid file, got {kind_of(path)}; "
            "lucid.compile takes models"
        )
    if not str(path).lower().endswith(".lucid"):
        _refuse_others(path)
    check_policy(queue_policy)
    compiled = _loaded(Artifact.open(path), threads, target, code, cache, progress)
    compiled.queue_policy = queue_policy
    return compiled


def _refuse_others(path: str | os.PathLike[str]) -> None:
    """Raises ModelFileError where the name is that of another kind of file."""
    from lucid.frontend.weights import SUFFIXES

    name = str(path).lower()
    if name.endswith(".onnx"):
        raise ModelFileError(
            f"{path}: an ONNX file, not a compiled model: lucid.compile({str(path)!r})"
        )
    if name.endswith(SUFFIXES):
        raise ModelFileError(
            f"{path}: weights alone, not a compiled model: compile their network, then "
            "`load_weights` them"
        )


class SavedSource:
    """The source of a saved model: its graphs are read when they are asked for, and those after the
    passes taken as they were saved, where these passes have made them."""

    input_names: Sequence[str] | None = None

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.name = artifact.manifest.name
        self.dtypes: Sequence[str] | None = artifact.manifest.dtypes
        self.disable: Sequence[str] = artifact.manifest.disable

    @functools.cached_property
    def _model(self) -> ModelSource:
        from lucid import model_source

        return model_source.ModelSource(self.artifact, self.disable)

    @property
    def structure(self) -> Structure | None:
        row = self.artifact.manifest.structure
        return Structure.from_json(row) if row else None

    def captured(self, shapes: Shapes) -> Graph:
        """The graph before any pass."""
        return self._model.captured(shapes)

    def graph(self, shapes: Shapes) -> Graph:
        return self.artifact.fused(shapes) or self._model.graph(shapes)

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        return self._model.examples(inputs, named)

    def rest(self, shapes: Shapes) -> Rest | None:
        return self._model.rest(shapes)

    def stages(self) -> list[str]:
        return self._model.stages()

    def stage(self, shapes: Shapes, name: str) -> Graph:
        return self._model.stage(shapes, name)

    def rewrites(self, shapes: Shapes) -> RewriteLog:
        return self._model.rewrites(shapes)

    def state(self) -> State:
        return self._model.state()

    def match(self, weights: Any, sizes: Sequence[Shapes] = ()) -> Mapping[str, Any]:
        return self._model.match(weights, sizes)


def _loaded(
    artifact: Artifact,
    threads: Threads,
    wanted: str | None,
    code: bool,
    cache: bool,
    progress: Progress | None,
) -> CompiledModel:
    log.enable()
    count = check_threads(threads)
    manifest = artifact.manifest
    made, target = _chosen(artifact, wanted)
    _require_weights(artifact, made, target)
    kept = ObjectCache() if cache else None

    def schedule_for(graph: Graph, batch: int) -> Schedule:
        from lucid.codegen.scheduling.schedule import schedule

        return schedule(graph, target, batch, manifest.precision, manifest.kernels)

    source = SavedSource(artifact)
    crashes = CrashReporter(
        source.captured, target.name, manifest.precision, count, source.disable, manifest.kernels
    )
    taken = made if code else None
    saved = Saved()
    if made:
        packed = PackedWeights(artifact, made, kept, target if code else None)
        ready = ready_plans(artifact, made, packed, target, count) if code else {}
        saved = Saved(_Schedules(artifact, made), StoredWeights(packed), ready)
    compiled = CompiledModel(
        source,
        schedule_for,
        target,
        count,
        StoredObjects(artifact, taken, kept) if taken else kept,
        callers(progress),
        crashes,
        Basis(manifest.precision, manifest.kernels, manifest.chosen_by if made else "model"),
        saved,
    )
    compiled.threads_asked = asked_threads(threads)
    compiled.metadata = dict(manifest.metadata)
    compiled.prepare_calls(manifest.input_shapes)
    return compiled


def _chosen(artifact: Artifact, wanted: str | None) -> tuple[ForTarget | None, Target]:
    """What the file has for the target to load for, if anything, and the target."""
    known = [(m, t) for m in artifact.manifest.targets if (t := loaded_target(m)) is not None]
    if wanted is not None:
        asked = runnable_target(wanted)
        return next((pair for pair in known if pair[1].name == asked.name), (None, asked))
    able = [pair for pair in known if pair[1].runs_here()]
    if able:
        return max(able, key=lambda pair: pair[1].level)
    host = Target.host()
    names = ", ".join(m.name for m in artifact.manifest.targets) or "no target"
    load_log.warning(
        "%s has code for %s, which this machine (%s) cannot run: it is compiled anew at each load; "
        "save it for %s too",
        artifact.container.origin,
        names,
        host.name,
        host.name,
    )
    return None, host


def _require_weights(artifact: Artifact, made: ForTarget | None, target: Target) -> None:
    """Raises ModelFileError where the file holds packed weights alone, and none for the target, or
    none that this Lucid has packed."""
    manifest = artifact.manifest
    if manifest.has_plain:
        return
    by = manifest.made_by
    same_lucid = (by.get("ir"), by.get("generator")) == (ir_hash(), generator_hash())
    if made is None:
        why = f"the model is to run on {target.name}"
        what = f"with targets=[..., {target.name!r}]"
    elif not same_lucid:
        why, what = "this is another version of Lucid", "with this version"
    else:
        return
    raise ModelFileError(
        f"{artifact.container.origin}: {without_plain(manifest)}, and {why}: save the model again, "
        f"{what}, or with weights='both' (or 'plain'), which every version and machine can read"
    )


class _Schedules(Mapping["Shapes", "Schedule"]):
    """The choices in a file for a target, by shapes, read when they are asked for. Raises
    ModelFileError."""

    def __init__(self, artifact: Artifact, made: ForTarget) -> None:
        self._artifact, self._name = artifact, made.name
        self._texts = dict(made.schedules)

    def __getitem__(self, shapes: Shapes) -> Schedule:
        from lucid.codegen.scheduling.schedule import Schedule

        text = self._texts[shapes]
        try:
            return Schedule.from_json(text)
        except ParseError as problem:
            self._artifact.container.fail(
                f"the choices for {self._name} cannot be read ({problem})"
            )

    def __iter__(self) -> Iterator[Shapes]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


# -- pickles ----------------------------------------------------------------------------------


def pickled(compiled: CompiledModel) -> tuple[Any, tuple[bytes, int | None, str]]:
    """How to pickle or copy a compiled model: as a file in memory, less what can be made anew."""
    from lucid.runtime.saving import has_plain, least_weights, write

    snapshot = compiled.snapshot()
    file = io.BytesIO()
    weights = "plain" if has_plain(snapshot) else least_weights(snapshot)
    write(snapshot, file, [snapshot.target], weights, code=False)
    return unpickled, (file.getvalue(), compiled.threads_asked, compiled.queue_policy)


def unpickled(data: bytes, threads: int | None, queue_policy: str = "adaptive") -> CompiledModel:
    """The inverse of `pickled`; object code comes from the cache, or is compiled.

    `threads`: what was asked for where it was compiled, or None. A default is determined anew by
    this process, which may have other processors. What was asked for stays, but never above that
    default: it was chosen for other processors, and threads that share one wait for each other.
    """
    pages = mmap.mmap(-1, len(data))  # aligned, as packed weights are to be
    pages.write(data)
    artifact = Artifact(Container(pages, "a pickled model"))
    here = default_threads()
    compiled = _loaded(artifact, min(threads or here, here), None, True, True, None)
    compiled.threads_asked = threads
    compiled.queue_policy = queue_policy
    return compiled


copyreg.pickle(CompiledModel, pickled)
