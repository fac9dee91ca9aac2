"""Weight files and state dicts: reading them, and matching them with a model's own keys.

Official, timm and torchvision checkpoints load as they are: `num_batches_tracked` is ignored, a
`module.` prefix is stripped, and the state dict may lie under `state_dict` or `model`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lucid.errors import (
    MissingPackageError,
    ModelFileError,
    UnsupportedError,
    WeightsError,
    kind_of,
)

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array

PREFIX = "module."
IGNORED = "num_batches_tracked"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
"""How weight files end."""
NETWORKS = (".onnx", ".lucid")
"""How files of whole networks end, weights included."""
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""How the floating kinds of a safetensors file are read; bfloat16 as the bits it has."""


class TensorFile:
    """A safetensors file, mapped into memory: its tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="numpy"):
            pass  # has checked that header, offsets and the file's length agree
        self.path = path
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map = np.frombuffer(self._mapped, np.uint8)
        self._data = 8 + int(self._map[:8].view("<u8")[0])
        header = json.loads(bytes(self._map[8 : self._data]))
        self._entries = {name: e for name, e in header.items() if name != "__metadata__"}

    def __reduce__(self) -> tuple[type[TensorFile], tuple[Path]]:
        return TensorFile, (self.path,)

    def tensors(self) -> dict[str, FileTensor]:
        """Every tensor of the file by its name; nothing is read yet."""
        return {
            name: FileTensor(self, name, tuple(entry["shape"]), entry["dtype"])
            for name, entry in self._entries.items()
        }

    def _drop(self, start: int, end: int) -> None:
        """Let go of the pages that were read: the file is the copy to keep, not this process."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_DONTNEED, first, end - first)

    def read(self, name: str) -> Array:
        """A copy of one floating tensor, as float32."""
        entry = self._entries[name]
        start, end = (self._data + offset for offset in entry["data_offsets"])
        raw = self._map[start:end].tobytes()
        self._drop(start, end)
        stored = np.frombuffer(raw, STORED[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False)


class FileTensor:
    """One tensor of a weight file, which `numpy.asarray` reads, as float32."""

    is_lazy: ClassVar[bool] = True

    def __init__(self, file: TensorFile, name: str, shape: tuple[int, ...], kind: str) -> None:
        self.file = file
        self.name = name
        self.shape = shape
        self.kind = kind

    @property
    def dtype(self) -> str:
        """What the file holds, in words: `float32` for all floating kinds, which become it."""
        return "float32" if self.kind in STORED else self.kind

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.file.read(self.name).astype(dtype or np.float32, copy=False)


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tensors of a weight file by their normalised keys; safetensors are read when used.

    `.pth`, `.pt`, `.bin` and `.tar` need torch. Of a whole network, `.onnx` or `.lucid`, those that
    have names. Raises WeightsError for a file that is missing, damaged, or of no kind known,
    MissingPackageError without the package safetensors.
    """
    file = Path(path)
    kinds = (_read_safetensors, *(_read_torch,) * 4, _read_onnx, _read_artifact)
    readers: dict[str, Callable[[Path], Mapping[str, Any]]]
    readers = dict(zip((*SUFFIXES, *NETWORKS), kinds, strict=True))
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise WeightsError(
            f"{file}: not a weight file known here; those end in {', '.join(readers)}"
        )
    if not file.is_file():
        raise WeightsError(f"{file}: no such file")
    return normalise_keys(reader(file), str(file))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return TensorFile(path).tensors()
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: reading it needs the package safetensors: `pip install safetensors`"
        ) from error
    except Exception as error:  # safetensors' own class, or OSError
        raise WeightsError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated or damaged: "
            "fetch it again"
        ) from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading {path.suffix} files needs torch: `pip install torch`, or convert "
            "the file to safetensors where torch is installed"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, runtime errors: by where the damage is
        reason = (str(error) or type(error).__name__).split(". ")[0]
        raise WeightsError(
            f"{path}: torch cannot read it as weights ({reason}); it may be truncated, damaged, or "
            "hold more than tensors"
        ) from error

    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: holds {kind_of(loaded)}, not a state dict")
    return loaded


def _read_onnx(path: Path) -> Mapping[str, Any]:
    from lucid.frontend.onnx import floating_initializers

    try:
        return floating_initializers(path)
    except (ModelFileError, UnsupportedError) as error:
        raise WeightsError(str(error)) from error


def _read_artifact(path: Path) -> Mapping[str, Any]:
    from lucid.artifact.contents import Artifact

    try:
        artifact = Artifact.open(path)
        names = (*artifact.manifest.state, *artifact.manifest.tables)
        return {name: artifact.payload[name] for name in names}
    except ModelFileError as error:
        raise WeightsError(str(error)) from error


def normalise_keys(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The state dict by the keys that models use. Raises WeightsError where two become one."""
    for wrapper in ("state_dict", "model"):
        if isinstance(state.get(wrapper), Mapping):
            return normalise_keys(state[wrapper], source)
    found: dict[str, Any] = {}
    for key, value in state.items():
        name = str(key).removeprefix(PREFIX)
        if name in found:
            raise WeightsError(f"{source}: holds {name} twice, with and without {PREFIX!r}")
        if name.rsplit(".", 1)[-1] != IGNORED:
            found[name] = _readable(value)
    return found


def _readable(value: Any) -> Any:
    """What `numpy.asarray` takes: torch's tensors may hold bfloat16, gradients, other devices."""
    if type(value).__module__.split(".")[0] != "torch" or not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def without_tables(
    found: Mapping[str, Any], tables: Mapping[str, Any], source: str, model: str
) -> dict[str, Any]:
    """What is found, without tables of integers, which may not change. Raises WeightsError where
    one differs from the model's own."""
    found = normalise_keys(found, source)
    for name in filter(found.__contains__, tables):
        if not np.array_equal(np.asarray(found.pop(name)), np.asarray(tables[name])):
            raise WeightsError(
                f"{source}: {name}, a table of integers, differs from the one that {model} has;"
                " compile the model with these weights"
            )
    return found


def match_weights(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    source: str,
    model: str,
    strict: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """What fills each expected key, and the keys that fit nothing.

    `expected`: shapes by key. Raises one WeightsError with every missing, unexpected, misshapen
    and non-floating tensor; without `strict` missing and unexpected ones are no errors.
    """
    found = normalise_keys(found, source)
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    problems: list[str] = []
    if strict:
        problems += [f"missing: {key} {list(expected[key])}" for key in missing]
        problems += [f"unexpected: {key} {_shape(found[key])}" for key in unexpected]
    matched: dict[str, Any] = {}
    for key, shape in expected.items():
        if key in found:
            value = matched[key] = found[key]
            problem = _misfit(value, shape)
            if problem:
                problems.append(f"{key}: {problem}")
    if problems:
        count = f"{len(problems)} tensor{'s' if len(problems) > 1 else ''}"
        raise WeightsError(
            f"{source} does not fit {model}: {count}\n  "
            + "\n  ".join(problems)
            + "\nCheck that the weights are of this variant and number of classes."
        )
    return matched, unexpected


def _misfit(value: Any, shape: tuple[int, ...]) -> str:
    """What is wrong with a value for a tensor of this shape; empty if nothing is."""
    if not hasattr(value, "shape") or tuple(value.shape) != tuple(shape):
        return f"expected shape {list(shape)}, got {_shape(value)}"
    kind = str(getattr(value, "dtype", "float32"))  # a name suits every library's dtype
    return "" if "float" in kind else f"expected floating numbers, got {kind}"


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return kind_of(value) if shape is None else str(list(shape))
