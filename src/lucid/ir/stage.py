"""What is computed behind a graph whose sizes or elements tell how the model goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array


class Stage(Protocol):
    """A compiled model, as a `Rest` calls it."""

    def results(self, arrays: Sequence[Array]) -> list[Array]:
        """Its outputs for these inputs, in order, all of them as they are stored: NumPy's dtype of
        that name, bf16 as uint16 bits. Arrays are C-contiguous; no result lies in an input's
        memory. Raises InputError where shapes do not fit."""


class Rest(Protocol):
    """What follows a graph whose results tell how the model goes on: further stages."""

    @property
    def outputs(self) -> Sequence[tuple[str, str, tuple[int | str, ...]]]:
        """Name, dtype (the graph's name of it) and shape of each output of the model; sizes that
        are not known are `"?"`."""

    @property
    def host_ops(self) -> Sequence[tuple[str, str]]:
        """What will run in NumPy behind the graph, as far as that is known: operators, and where
        they are in the model."""

    def refuse_host_ops(self) -> None:
        """Raise UnsupportedError where anything else would be run in NumPy behind the graph."""

    def finish(self, results: list[Array], apart: Sequence[Any] = ()) -> list[Any]:
        """The outputs of the model from the results of its graph, in order, which are as they are
        stored (see `Stage.results`). `apart`: the inputs that no graph takes, as the caller gave
        them. They are returned to the user as they come: bfloat16 as an
        array of `ml_dtypes.bfloat16`, or of float32. Called from any thread, at the same time too.
        What it returns is the caller's: no memory that is used again; lists for sequences, None
        for nothing. Raises LucidError."""


CompileStage = Callable[[Any], Stage]
"""Compiles a further stage, which is a `lucid.frontend.sources.Model`, with the target, threads,
precision, cache and options of the first. It is compiled at once where its `input_shapes` are not
None, else at its first call. Who calls it keeps what it gives."""
