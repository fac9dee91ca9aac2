"""Calls libraries that `lucid.emit_c` has made, from Python: their interface as ctypes has it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STATUSES = (
    "OK",
    "NULL_ARGUMENT",
    "BAD_OPTION",
    "NO_PROCESSOR",
    "NO_MEMORY",
    "NO_THREADS",
    "WEIGHTS_MISSING",
    "WEIGHTS_FOREIGN",
    "WEIGHTS_DAMAGED",
    "BAD_COUNT",
    "BAD_SHAPE",
    "BAD_SIZE",
    "BAD_POINTER",
    "FORKED",
    "BROKEN",
)


def program(source: str, place: Path) -> Path:
    """A program of this text in C99, without a warning, that stops where it does what is undefined;
    tests skip where there is no compiler."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    (place / "program.c").write_text(source)
    strict = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined")
    subprocess.run([COMPILER, *strict, "program.c", "-o", "program"], cwd=place, check=True)
    return place / "program"


class Options(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_char_p),
        ("threads", ctypes.c_int),
        ("max_calls", ctypes.c_int),
        ("level", ctypes.c_char_p),
    )


class Input(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
    )


class Output(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int),
        ("item_bytes", ctypes.c_size_t),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("batch", ctypes.c_int64),
    )


class Library:
    """A shared library `name.so` in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._functions = ctypes.CDLL(str(folder / f"{name}.so"))
        self.error = self._function("error", ctypes.c_char_p, ctypes.c_int)
        self.destroy = self._function("destroy", None, ctypes.c_void_p)
        self.level = self._function("level", ctypes.c_char_p, ctypes.c_void_p)
        self._create = self._function("create", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        arrays = ctypes.c_void_p, ctypes.c_size_t
        self._run = self._function("run", ctypes.c_int, ctypes.c_void_p, *arrays, *arrays)
        info = ctypes.POINTER(Tensor)
        self.input_info = self._function("input_info", info, ctypes.c_size_t)
        self.output_info = self._function("output_info", info, ctypes.c_size_t)
        self._output_shape = self._function(
            "output_shape", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
        )

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._functions, f"{self.name}_{name}")
        function.restype, function.argtypes = result, arguments
        return function

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.name}.bin"

    def create(
        self,
        weights: Path | str | None = "own",
        threads: int = 1,
        max_calls: int = 1,
        level: str | None = None,
    ) -> tuple[str, int | None]:
        """Status and handle of a model."""
        path = self.weights if weights == "own" else weights
        handle = ctypes.c_void_p(1)
        options = Options(
            str(path).encode() if path else None, threads, max_calls, level and level.encode()
        )
        status = self._create(ctypes.byref(options), ctypes.byref(handle))
        assert (status == 0) == (handle.value is not None)
        return STATUSES[status], handle.value

    def create_raw(self, options: Any, handle: Any) -> str:
        return STATUSES[self._create(options, handle)]

    def run_raw(self, *arguments: Any) -> str:
        return STATUSES[self._run(*arguments)]

    def run(
        self, handle: int, arrays: Sequence[Any], outs: Sequence[Any], shaped: bool = True
    ) -> str:
        """The status of a call with these arrays."""
        return STATUSES[self.prepared(handle, arrays, outs, shaped)()]

    def prepared(
        self, handle: int | None, arrays: Sequence[Any], outs: Sequence[Any], shaped: bool = True
    ) -> Callable[[], int]:
        """A call with these arrays, which gives the number of its status."""
        shapes = [(ctypes.c_int64 * max(1, a.ndim))(*a.shape) for a in arrays]
        inputs = (Input * len(arrays))(
            *(
                Input(a.ctypes.data, a.nbytes, shape if shaped else None)
                for a, shape in zip(arrays, shapes, strict=True)
            )
        )
        outputs = (Output * len(outs))(*(Output(a.ctypes.data, a.nbytes) for a in outs))
        return partial(self._run, handle, inputs, len(arrays), outputs, len(outs))

    def output_shape(
        self, shapes: Sequence[Sequence[int]] | None, number: int
    ) -> tuple[str, tuple[int, ...]]:
        """Status, and the shape of an output for inputs of these shapes."""
        kept = [(ctypes.c_int64 * max(1, len(s)))(*s) for s in shapes or ()]
        given = (ctypes.c_void_p * max(1, len(kept)))(*(ctypes.addressof(s) for s in kept))
        out = (ctypes.c_int64 * 8)(*[-1] * 8)
        status = self._output_shape(None if shapes is None else given, number, out)
        info = self.output_info(number)
        return STATUSES[status], tuple(out[: info.contents.rank]) if info else ()
