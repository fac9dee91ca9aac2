"""Modules as nested scopes: ports, wires, runs, and modules that cannot stay whole."""

from lucid.view.compare import compare
from lucid.view.layers import order
from lucid.view.modules import Scope, modules
from lucid.view.picture import Box, Edge, Picture


def chain(*groups, skips=()):
    """Boxes b0, b1, ... that each read the one before, in these modules."""
    boxes = []
    for i, group in enumerate(groups):
        sources = [i - 1] if i else []
        sources += [a for a, b in skips if b == i]
        edges = tuple(Edge(f"b{s}", 0, n, "f32[N]") for n, s in enumerate(sources))
        path = tuple(filter(None, group.split(".")))
        boxes.append(
            Box(f"b{i}", "relu", "elementwise", group=path, results=("f32[N]",), edges=edges)
        )
    return Picture("chain", tuple(boxes))


def outline(scope):
    return [i.id if isinstance(i, Box) else (i.title, outline(i)) for i in scope.items]


def test_scopes_nest():
    root = modules(chain("", "a", "a.b", "a.b", ""))
    assert outline(root) == ["b0", ("a", ["b1", ("b", ["b2", "b3"])]), "b4"]
    inner = root.items[1]
    assert (inner.ins, inner.outs) == ([("b0", 0)], [("b3", 0)])
    assert [(w.source, w.targets) for w in inner.wires] == [(2, (0,)), (0, (1,)), (1, (3,))]


def test_a_module_of_one_thing_is_that_thing():
    assert outline(modules(chain("", "a.b", "a.b", "c"))) == ["b0", ("b", ["b1", "b2"]), "b3"]


def test_equal_modules_fold():
    drawn = chain("", *(f"l.{i}" for i in range(5) for _ in range(2)), "")
    (_, layer, _) = modules(drawn).items
    run = layer if layer.repeat > 1 else layer.items[0]
    assert (run.repeat, run.title) == (5, "l.0–4")
    assert [i.path for i in run.items] == [f"l.{i}" for i in range(5)]
    different = chain("", "l.0", "l.0", "l.1", "l.1", "l.1")
    assert all(i.repeat == 1 for i in modules(different).items if isinstance(i, Scope))


def test_what_others_read_keeps_modules_apart():
    groups = ["", *(f"l.{i}" for i in range(3) for _ in range(2)), ""]
    (_, layer, _) = modules(chain(*groups, skips=[(2, 7)])).items
    assert [i.title for i in layer.items] == ["l.0", "l.1–2"]


def test_a_module_called_twice_becomes_two():
    root = modules(chain("a", "a", "b", "b", "a", "a", "c"))
    paths = [i.path if isinstance(i, Scope) else i.id for i in root.items]
    assert paths == ["a", "b", "a#2", "b6"]


def test_modules_that_wait_for_each_other_are_opened():
    boxes = [
        Box("p", "relu", "elementwise", group=("a",), results=("f32[N]",)),
        Box("q", "relu", "elementwise", group=("b",), results=("f32[N]",)),
        Box("r", "neg", "elementwise", group=("b",), edges=(Edge("p", 0, 0, "f32[N]"),)),
        Box("s", "neg", "elementwise", group=("a",), edges=(Edge("q", 0, 0, "f32[N]"),)),
    ]
    assert sorted(outline(modules(Picture("tangle", tuple(boxes))))) == ["p", "q", "r", "s"]


def test_order_puts_readers_below():
    wires = ((3, (0, 1)), (0, (2,)), (1, (2, 4)))  # a fork, a join, one value leaves
    found = order(3, 1, 1, wires)
    row = {slot: i for i, layer in enumerate(found.layers) for slot in layer}
    assert all(row[a] + 1 == row[b] for _, a, b in found.links)
    assert (row[3], row[4]) == (0, len(found.layers) - 1)


def test_order_avoids_crossings():
    found = order(4, 0, 0, ((0, (3,)), (1, (2,))))
    upper, lower = found.layers
    assert [{0: 3, 1: 2}[s] for s in upper] == list(lower)


def test_compare_marks_what_happened():
    before = chain("", "", "", "")
    kept, changed, lost = before.boxes[0], before.boxes[1], before.boxes[3]
    edges = (Edge("b1", 0, 0, "f32[N]"),)
    after = Picture(
        "after",
        (
            kept,
            Box("b1", "clip", "elementwise", results=("f32[N]",), edges=changed.edges),
            Box("new", "neg", "elementwise", results=("f32[N]",), edges=edges),
        ),
    )
    found = {b.id: b for b in compare(before, after).boxes}
    status = {name: b.status for name, b in found.items()}
    assert status == {"b0": "", "b1": "changed", "new": "added", "b2": "removed", "b3": "removed"}
    assert all(e.gone for e in found["b3"].edges)
    assert len(found["b3"].edges) == len(lost.edges)
    root = modules(compare(before, after))
    assert [w.key[0] for w in root.wires if w.gone] == ["b1", "b2"]
