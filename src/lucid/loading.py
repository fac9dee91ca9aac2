"""`lucid.load`: compiled models from files, and from pickles, which are such files in memory."""

from __future__ import annotations

import copyreg
import io
import logging
import mmap
import os
from typing import Any

from lucid.artifact.container import Container
from lucid.artifact.contents import Artifact, ForTarget, ir_hash, without_plain
from lucid.codegen.scheduling.explain import Basis
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError, ModelFileError, ParseError, kind_of
from lucid.frontend.weights import SUFFIXES
from lucid.ir.graph import Graph
from lucid.ir.types import Shapes
from lucid.model_source import ModelSource
from lucid.runtime import log
from lucid.runtime.admission import check_policy
from lucid.runtime.cache import ObjectCache, generator_hash
from lucid.runtime.crash import CrashReporter, callers
from lucid.runtime.executable import CompiledModel
from lucid.runtime.library import Progress
from lucid.runtime.plans import Saved
from lucid.runtime.processors import default_threads
from lucid.runtime.saving import has_plain, loaded_target, write
from lucid.runtime.stored import StoredObjects, StoredWeights
from lucid.settings import Threads, asked_threads, check_threads, runnable_target

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
    code is taken from the file, only graphs, choices and weights: checksums detect damage, not
    tampering. `cache`, `progress` and `queue_policy` as in `lucid.compile`.

    Packed weights are mapped read-only, so that processes that load the same file share them:
    never write to a file that is in use, but replace it, as `save` does. Raises ModelFileError for
    a file that is damaged, truncated, of another format, or whose only weights are packed for other
    targets or by another version of Lucid; InputError, UnknownNameError, OSError.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"lucid.load takes the path of a .lucid file, got {kind_of(path)}; "
            "lucid.compile takes models"
        )
    if str(path).lower().endswith(".onnx"):
        raise ModelFileError(
            f"{path}: an ONNX file, not a compiled model: lucid.compile({str(path)!r})"
        )
    if str(path).lower().endswith(SUFFIXES):
        raise ModelFileError(
            f"{path}: weights alone, not a compiled model: compile their network, then "
            "`load_weights` them"
        )
    check_policy(queue_policy)
    compiled = _loaded(Artifact.open(path), threads, target, code, cache, progress)
    compiled.queue_policy = queue_policy
    return compiled


class SavedSource(ModelSource):
    """The graphs of an artifact; those after the passes are taken as they were saved, where these
    passes have made them."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact, artifact.manifest.disable)
        self.artifact = artifact

    def graph(self, shapes: Shapes) -> Graph:
        return self.artifact.fused(shapes) or super().graph(shapes)


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
    schedules = _schedules(artifact, made) if made else {}

    def schedule_for(graph: Graph, batch: int) -> Schedule:
        return schedule(graph, target, batch, manifest.precision, manifest.kernels)

    source = SavedSource(artifact)
    crashes = CrashReporter(
        source.captured, target.name, manifest.precision, count, source.disable, manifest.kernels
    )
    taken = made if code else None
    compiled = CompiledModel(
        source,
        schedule_for,
        target,
        count,
        StoredObjects(artifact, taken, kept) if taken else kept,
        callers(progress),
        crashes,
        Basis(manifest.precision, manifest.kernels, manifest.chosen_by if made else "model"),
        Saved(schedules, StoredWeights(artifact, made) if made else None),
    )
    compiled.threads_asked = asked_threads(threads)
    compiled.metadata = dict(manifest.metadata)
    compiled.prepare(manifest.input_shapes)
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
    if manifest.weights != "packed":
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


def _schedules(artifact: Artifact, made: ForTarget) -> dict[Shapes, Schedule]:
    try:
        return {shapes: Schedule.from_json(text) for shapes, text in made.schedules}
    except ParseError as problem:
        artifact.container.fail(f"the choices for {made.name} cannot be read ({problem})")


# -- pickles ----------------------------------------------------------------------------------


def pickled(compiled: CompiledModel) -> tuple[Any, tuple[bytes, int | None, str]]:
    """How to pickle or copy a compiled model: as a file in memory, less what can be made anew."""
    snapshot = compiled.snapshot()
    file = io.BytesIO()
    weights = "plain" if has_plain(snapshot) else "packed"
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
