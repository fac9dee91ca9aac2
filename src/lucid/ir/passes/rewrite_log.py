"""The log of rewrites and near misses, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from lucid.ir.lineage import matches
from lucid.ir.marked import ADDED, HEADING, NOTE, PLAIN, REMOVED, Line, block


@dataclass(frozen=True)
class Firing:
    """One rewrite that happened: which rule, where it is declared, and the nodes as text.

    `origins`: the module paths of all these nodes; `values`: the names of their results.
    `equation`: what the rule takes for equal.
    """

    pass_name: str
    rule: str
    line: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    origins: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    equation: str = ""


@dataclass(frozen=True)
class Miss:
    """One rewrite that nearly happened, and why it did not.

    `line`: where the rule gave up. `value`: the name of the node's first result, `origin` its
    module path, `node` its text. `others`: the same names of other nodes that it is about, such as
    the layer that the node would have joined.
    """

    pass_name: str
    rule: str
    line: str
    value: str
    op: str
    origin: str
    node: str
    reason: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f" at {self.origin}" if self.origin else ""
        return f"{self.op} %{self.value}{place}: {self.reason}"


@dataclass
class RewriteLog:
    """The rewrites of a run of passes, in order, and the near misses that stood in the end."""

    passes: Sequence[str] = ()
    firings: list[Firing] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)

    def about(self, pattern: str) -> RewriteLog:
        """Only what concerns the modules that match, such as `layer1.0` or `*.conv2`, or the
        results, such as `%relu_3`."""

        def wanted(origins: Iterable[str], values: Iterable[str]) -> bool:
            if pattern.startswith("%"):
                return any(fnmatchcase(v, pattern[1:]) for v in values)
            return any(matches(o, pattern) for o in origins)

        return RewriteLog(
            self.passes,
            [f for f in self.firings if wanted(f.origins, f.values)],
            [m for m in self.misses if wanted([m.origin], [m.value])],
        )

    def lines(self) -> Iterator[Line]:
        """For each pass its rewrites, with the nodes before and after, and its near misses."""
        for name in self.passes:
            firings = [f for f in self.firings if f.pass_name == name]
            misses = [m for m in self.misses if m.pass_name == name]
            yield Line(
                HEADING, f"{name}: {_count(firings, 'rewrite')}, {_count(misses, 'near miss')}"
            )
            for number, firing in enumerate(firings, 1):
                yield Line(PLAIN, "")
                yield Line(PLAIN, f"{number}. {firing.rule} ({firing.line})")
                yield Line(NOTE, f"   {firing.equation}")
                for text in firing.before:
                    yield from block(REMOVED, text)
                for text in firing.after:
                    yield from block(ADDED, text)
            if misses:
                yield Line(PLAIN, "")
                yield Line(PLAIN, "did not fire:")
            for miss in misses:
                yield Line(NOTE, f"{miss}")
                yield Line(PLAIN, f"    {miss.rule} ({miss.line})")
            if firings or misses:
                yield Line(PLAIN, "")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "passes": list(self.passes),
            "rewrites": [asdict(f) for f in self.firings],
            "near_misses": [asdict(m) for m in self.misses],
        }


def _count(things: Sequence[object], kind: str) -> str:
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return f"{len(things)} {kind if len(things) == 1 else plural}"
