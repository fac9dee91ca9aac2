"""`emit_c`: the folder with a model in C."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from lucid.artifact.container import replacing
from lucid.artifact.contents import ir_hash
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.driver_tables import DRIVER
from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.program.program import Program
from lucid.codegen.program.program_tables import Function
from lucid.codegen.target import Target
from lucid.emit.archive import Member, archive
from lucid.emit.elf import Data, data_object, renamed
from lucid.emit.example import example_values
from lucid.emit.interface import Level, Sizes, filled, source, values_of
from lucid.emit.level_tables import exported, level_tables
from lucid.emit.linking import link
from lucid.emit.names import identifier
from lucid.emit.weights import WeightFile
from lucid.errors import InputError, UnsupportedError
from lucid.ir.batch import obstacle
from lucid.runtime.cache import generator_hash
from lucid.runtime.executable import CompiledModel
from lucid.runtime.plans import Snapshot
from lucid.runtime.saved_weights import packed_array
from lucid.runtime.saving import (
    object_codes,
    payload_of,
    programs_of,
    require_plain,
    schedules_of,
    store_of,
    targets_of,
)
from lucid.runtime.signature import Signature
from lucid.runtime.steps import listed

LARGEST_EMBEDDED = 1 << 30
"""Bytes of weights in a library: code reaches its data by 32-bit offsets."""
TEMPLATES = {
    "{name}.h": "interface.h",
    "{name}.hpp": "wrapper.hpp",
    "main.c": "main.c",
    "CMakeLists.txt": "CMakeLists.txt",
    "README.md": "README.md",
}


def emit_c(
    compiled: CompiledModel,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    targets: Sequence[str] | None = None,
    embed: bool = False,
    shared: bool = False,
) -> Path:
    """Write a model as a library in C for all shapes planned so far (`CompiledModel.prepare`); the
    folder, which is made where there is none. Files in it are replaced one by one, each whole.

    `name`: what files and functions are called, by default the model's. `targets`: levels of one
    architecture, among which the library chooses when it runs; by default the one compiled for.
    `embed`: put the weights into the library, not into a file. `shared`: link a shared library too,
    by the C compiler that CC names, that is installed, or of PyPI's ziglang. Models that are equal,
    and compiled for as many threads and the same target, make equal files.

    Raises UnsupportedError for a model that computes anything in NumPy or whose later sizes depend
    on data; InputError before the first shape is planned, and for a name or targets that make no
    library; UnknownNameError, WeightsError, OSError; MissingPackageError without a C compiler, and
    CompileError where it fails.
    """
    snapshot = compiled.snapshot()
    chosen = _levels(snapshot, targets)
    _require_native(snapshot)
    prefix = identifier(snapshot.source.name) if name is None else name
    if prefix != identifier(prefix):
        raise InputError(
            "name is what files and functions are called, and a namespace in C++: "
            f"{identifier(prefix)!r}, not {prefix!r}"
        )
    signature = Signature(compiled.inputs, compiled.outputs)
    sizes = [Sizes(p, obstacle(p.graph) is None) for p in snapshot.plans.values()]
    _require_one_signature(snapshot, sizes)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    sink: AbstractContextManager[IO[bytes]]
    sink = nullcontext(io.BytesIO()) if embed else replacing(place / f"{prefix}.bin")
    with sink as file:
        library = _Library(prefix, snapshot, signature, chosen, WeightFile(file))
        library.weights.finish(library.identity)
        mark = Data(f"{prefix}_identity_{library.identity.hex()}", library.identity)
        library.add(mark)
        if embed and library.weights.size > LARGEST_EMBEDDED:
            raise InputError(
                f"{library.weights.size:,} bytes of weights are too many to embed: leave them in "
                "a file"
            )
        if isinstance(file, io.BytesIO):
            library.add(Data(f"{prefix}_weights", file.getvalue()))
    _write(place / f"{prefix}.a", archive(library.members))
    values = values_of(
        prefix, snapshot.source.name, signature, sizes, library.levels, mark.symbol, embed
    )
    values |= example_values(snapshot, prefix, embed)
    for title, template in TEMPLATES.items():
        _write(place / title.format(name=prefix), filled(template, values).encode())
    _write(place / f"{prefix}.c", source(values).encode())
    if shared:
        link(place, prefix, chosen[0])
    return place


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


# -- what can be emitted --------------------------------------------------------------------------


def _levels(snapshot: Snapshot, names: Sequence[str] | None) -> list[Target]:
    """The targets of a library, the best first."""
    chosen = targets_of(snapshot, names)
    if len({target.triple for target in chosen}) > 1:
        told = ", ".join(target.name for target in chosen)
        raise InputError(f"a library is for one architecture, and targets are of several: {told}")
    if any(target != snapshot.target for target in chosen):
        require_plain(snapshot)
    return sorted(chosen, key=lambda target: -target.level)


def _require_native(snapshot: Snapshot) -> None:
    """Raises UnsupportedError where not all is done by kernels, in one native call."""
    name = snapshot.source.name
    for plan in snapshot.plans.values():
        if plan.host_ops:
            raise UnsupportedError(
                f"{name} cannot be emitted as C: {len(plan.host_ops)} of its ops have no kernel "
                f"and run in NumPy:{listed(plan.host_ops)}"
            )
        if plan.whole is None:
            raise UnsupportedError(f"{name} cannot be emitted as C: it computes nothing")


def _require_one_signature(snapshot: Snapshot, sizes: Sequence[Sizes]) -> None:
    """Raises UnsupportedError where inputs or outputs are of other ranks for other shapes."""
    if len({tuple((v.type.dtype, v.type.rank) for v in own.values) for own in sizes}) > 1:
        raise UnsupportedError(
            f"{snapshot.source.name} cannot be emitted as C: its outputs have other ranks or "
            "dtypes for other shapes of its inputs; emit a library for each"
        )


# -- the library ----------------------------------------------------------------------------------


class _Library:
    """The members of the static library: kernels and tables of each level.

    `identity`: 16 bytes that tell its tables, and where its weights lie, from all others.
    """

    def __init__(
        self,
        name: str,
        snapshot: Snapshot,
        signature: Signature,
        targets: Sequence[Target],
        weights: WeightFile,
    ) -> None:
        self.weights = weights
        self.members: list[Member] = []
        self.levels: list[Level] = []
        self._name, self._snapshot, self._targets = name, snapshot, targets
        digest = hashlib.sha256(f"{signature} {ir_hash()} {generator_hash()}".encode())
        for target in targets:
            data = self._add_level(target)
            digest.update(repr((target.name, data.content, data.addresses)).encode())
        self.identity = digest.digest()[:16]

    def add(self, data: Data) -> None:
        """Data in an object of its own."""
        code = data_object(data, self._targets[0])
        self.members.append(Member(f"{data.symbol}.o", code, [data.symbol]))

    def _add_level(self, target: Target) -> Data:
        prefix = f"{self._name}_{identifier(target.name)}"
        programs = self._programs(target)
        tables = level_tables(prefix, programs, self._places(programs, target))
        kernels = [Driver(), *(kernel for program in programs for kernel in program.kernels())]
        codes = object_codes(self._snapshot, list(dict.fromkeys(kernels)), target)
        for kernel, code in codes.items():
            self._add_kernel(kernel, code, target, prefix)
        self.add(tables)
        entries = {e: exported(prefix, Function(DRIVER, e)) for e in DRIVER.exports}
        self.levels.append(Level(target, prefix, tables.symbol, entries))
        return tables

    def _add_kernel(self, kernel: KernelSpec, code: bytes, target: Target, prefix: str) -> None:
        made, symbols = renamed(code, lambda name: f"{prefix}_{name}")
        title = f"{identifier(target.name)}_{kernel.key().replace('-', '_')}.o"
        self.members.append(Member(title, made, symbols))

    def _programs(self, target: Target) -> list[Program]:
        """The program of each plan, in order."""
        schedules = schedules_of(self._snapshot, target)
        programs = []
        for shapes, plan in self._snapshot.plans.items():
            (program,) = programs_of(self._snapshot, plan, schedules[shapes], target)
            programs.append(program)
        return programs

    def _places(self, programs: Sequence[Program], target: Target) -> Mapping[Packed, int]:
        """Where in the file the weights of programs lie; they are written there."""
        snapshot = self._snapshot
        store = store_of(snapshot) if target == snapshot.target else None
        payload = payload_of(snapshot)
        weights = dict.fromkeys(w for program in programs for w in program.weights.values())
        return {w: self.weights.add(packed_array(w, payload, store)) for w in weights}
