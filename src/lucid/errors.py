"""One tree of exceptions. A message says what is wrong, where, why, and what to do about it."""

from pathlib import Path


def kind_of(value: object) -> str:
    """What a value is, in a message: `a dict`, `an int`, `an ndarray`."""
    name = type(value).__name__
    return f"an {name}" if name.lower().startswith((*"aeio", "nd")) else f"a {name}"


class LucidError(Exception):
    """The root: everything Lucid raises on purpose."""


class InputError(LucidError, ValueError):
    """An array given to a model does not fit it (rank, shape, dtype, or not an array at all)."""


class ShapeError(LucidError, ValueError):
    """An op was given operands whose types it does not accept."""


class TraceError(LucidError):
    """The model's forward does something a traced graph cannot express."""


class UnsupportedError(LucidError):
    """The model holds what Lucid has no ops or kernels for, or is asked for what its kind does not
    allow (to save a model of several stages); all of it is listed.

    `node`: the first result of the node that has no kernel for its operands, where it is just one.
    """

    node: str | None = None


class HostOpsWarning(UserWarning):
    """Ops of a model have no kernel and run on the host, in NumPy, between native calls; the
    message lists them with their places. Given once for each of them, when a model is compiled,
    loaded or called; `lucid.CompileOptions(host_ops="refuse")` raises UnsupportedError instead.
    """


class ParseError(LucidError, ValueError):
    """IR text that does not follow the grammar. The message carries line and column."""


class ModelFileError(LucidError, ValueError):
    """A model file that cannot be read: truncated, damaged, or against the rules of its format."""


class VerifyError(LucidError):
    """A graph or program that breaks a rule of its IR; names node, op and pass."""


class WeightsError(LucidError, ValueError):
    """A weight file or state dict that cannot be read or does not fit the model."""


class UnknownNameError(LucidError, LookupError):
    """No model, pass, stage or kernel of this name; the closest names are suggested."""


class ImageError(LucidError, ValueError):
    """An image that cannot be read."""


class CompileError(LucidError):
    """Lucid failed to compile a legal graph: a defect of Lucid, not of the model.

    `bundle`: the folder that holds what repeats it, where one was written.
    """

    bundle: Path | None = None


class QueueFullError(LucidError):
    """A Batcher has as many requests waiting as it may, and none was begun in time."""


class BatcherClosedError(LucidError):
    """A Batcher that is closed, or was made before a fork, is given a request."""


class MissingPackageError(LucidError, ImportError):
    """A package that only this feature needs is not installed; names the extra that brings it."""
