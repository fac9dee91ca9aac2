"""`BatchSize`: the value of `x.shape[0]` while a forward is traced."""

from __future__ import annotations

from typing import Any, NoReturn

from lucid.frontend.recording import refusal
from lucid.ir.types import Dim

WHY = (
    "the graph serves every batch size, so the batch has no value while tracing. It can be "
    "multiplied by an int and used as a dimension of reshape, view or expand; -1 also works there"
)


def _refuse(what: str) -> Any:
    def refuse(self: BatchSize, *operands: object) -> NoReturn:
        raise refusal(f"the forward {what}", WHY)

    return refuse


class BatchSize:
    """A multiple of the symbolic batch. Everything but `* int` raises TraceError."""

    __slots__ = ("dim",)

    def __init__(self, dim: Dim) -> None:
        self.dim = dim

    def __mul__(self, factor: object) -> BatchSize:
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise refusal(f"the forward multiplies the batch size by {factor!r}", WHY)
        return BatchSize(self.dim * factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return str(self.dim)

    __hash__ = None  # type: ignore[assignment]  # equality is refused, so hashing must be
    __int__ = __index__ = __float__ = _refuse("needs the batch size as a number")
    __bool__ = _refuse("branches on the batch size")
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse("compares the batch size")
    __add__ = __radd__ = __sub__ = __rsub__ = _refuse("adds to the batch size")
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _refuse("divides the batch size")
    __mod__ = __rmod__ = __divmod__ = __neg__ = __pow__ = _refuse("computes with the batch size")
