"""Exporting PyTorch modules: what is kept from call to call, exported programs, signatures, and
what is said where torch fails."""

import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import InputError, TraceError

torch = pytest.importorskip("torch")
nn = torch.nn

from lucid.frontend.torch import import_torch  # noqa: E402  # needs torch

IMAGE = (2, 3, 4, 4)


class Stateful(nn.Module):
    """A module that a function may write to."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.plain = torch.zeros(1)
        self.cache = torch.zeros(0)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def counts(m: Any, x: Any) -> Any:
    m.calls += 1
    return x + m.calls


def assigns(m: Any, x: Any) -> Any:
    m.calls = m.calls + 1
    return x + m.calls


def counts_in_integers(m: Any, x: Any) -> Any:
    m.count += 1
    return x * m.count


def remembers(m: Any, x: Any) -> Any:
    y = x + m.calls
    m.calls.copy_(x.mean().reshape(1))
    return y


def writes_through_a_view(m: Any, x: Any) -> Any:
    m.calls.view(-1)[0] += x.mean()
    return x + m.calls


def writes_to_a_weight(m: Any, x: Any) -> Any:
    with torch.no_grad():
        m.weight.mul_(2)
    return x * m.weight


def writes_to_a_tensor(m: Any, x: Any) -> Any:
    m.plain.add_(1)
    return x + m.plain


def sets_an_attribute(m: Any, x: Any) -> Any:
    m.plain = m.plain + 1
    return x + m.plain


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (counts, "the buffer calls at "),
        (assigns, "the buffer calls at "),
        (counts_in_integers, "the buffer count at "),
        (remembers, "the buffer calls at "),
        (writes_through_a_view, "the buffer calls at "),
        (writes_to_a_weight, "the parameter weight at "),
        (writes_to_a_tensor, "the tensor plain at "),
        (sets_an_attribute, "the attribute plain"),
    ],
)
def test_results_that_depend_on_earlier_calls_are_refused(function: Any, what: str) -> None:
    with pytest.raises(TraceError, match=f"the forward of Stateful writes to {what}") as caught:
        import_torch(Stateful(function), IMAGE)
    line = Stateful.forward.__code__.co_firstlineno + 1
    assert not what.endswith("at ") or f"at {__file__}:{line}" in str(caught.value)


def counts_for_nothing(m: Any, x: Any) -> Any:
    m.count += 1
    return x * 2


def writes_before_it_reads(m: Any, x: Any) -> Any:
    m.calls.zero_()
    m.calls.add_(3)
    return x + m.calls


@pytest.mark.parametrize("function", [counts_for_nothing, writes_before_it_reads])
def test_writing_without_effect_is_left_out(function: Any) -> None:
    with pytest.warns(UserWarning, match="on which its result does not depend"):
        compiled = lucid.compile(Stateful(function), IMAGE)
    x = torch.randn(IMAGE)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), Stateful(function)(x))


def test_caches_and_writing_while_training_are_fine() -> None:
    def cached(m: Any, x: Any) -> Any:
        if m.cache.shape[-1:] != x.shape[-1:]:
            m.cache = torch.arange(x.shape[-1])
        if m.training:
            m.calls += 1
        return x + m.cache + m.calls

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = import_torch(Stateful(cached), IMAGE)
    assert len(graph.inputs) == 1


# -- exported programs --------------------------------------------------------------------------


@pytest.fixture
def net() -> Any:
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, 5)).eval()


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_exported_programs_are_taken(net: Any, batch: int) -> None:
    program = torch.export.export(net, (torch.zeros(batch, 3, 4, 4),))
    x = torch.randn(5, 3, 4, 4)
    module = program.module()
    guards = module._guards_fn if hasattr(module, "_guards_fn") else None
    for model in (program, module):
        compiled = lucid.compile(model, (batch, 3, 4, 4))
        torch.testing.assert_close(compiled(x), net(x))
        compiled.load_weights(net.state_dict())
        torch.testing.assert_close(compiled(x), net(x))
    assert getattr(module, "_guards_fn", None) is guards


def test_exported_programs_have_one_size(net: Any) -> None:
    program = torch.export.export(net, (torch.zeros(2, 3, 4, 4),))
    with pytest.raises(InputError, match=r"was exported for inputs of \(2, 3, 4, 4\)"):
        lucid.compile(program, (2, 3, 4, 5))
    sizes = ({0: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    wide = torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(2, 3, 4, 4),), dynamic_shapes=sizes)
    import_torch(wide, (2, 3, 4, 7))
    height = ({2: torch.export.Dim("height", min=4, max=10)},)
    limited = torch.export.export(
        nn.Conv2d(3, 4, 3), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=height
    )
    import_torch(limited, (5, 3, 10, 8))
    with pytest.raises(InputError, match=r"of \(2, 3, s\d+ \(from 4 to 10\), 8\), and is to"):
        import_torch(limited, (2, 3, 11, 8))


# -- signatures and names -----------------------------------------------------------------------


class Several(nn.Module):
    def forward(self, *images: Any, **options: Any) -> Any:
        return images[0] * 2


class Optional(nn.Module):
    def forward(self, pixels: Any, mask: Any = None) -> Any:
        return pixels * 2 if mask is None else pixels * mask


def test_forwards_of_any_number_of_arguments() -> None:
    x = torch.randn(IMAGE)
    torch.testing.assert_close(lucid.compile(Several(), IMAGE)(x), x * 2)
    torch.testing.assert_close(lucid.compile(Optional(), IMAGE)(x), x * 2)
    assert import_torch(Several(), IMAGE).inputs[0].name == "images"
    assert import_torch(Optional(), IMAGE).inputs[0].name == "pixels"


def test_missing_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Any, mask: Any) -> Any:
            return x * mask

    class ByName(nn.Module):
        def forward(self, *, x: Any) -> Any:
            return x * 2

    with pytest.raises(InputError, match=r"the forward of Two takes x, mask, got 1 by position"):
        import_torch(Two(), IMAGE)
    with pytest.raises(InputError, match=r"the forward of ByName takes x, got 1 by position"):
        import_torch(ByName(), IMAGE)


def test_outputs_have_the_names_of_the_forward() -> None:
    class Named(nn.Module):
        def forward(self, x: Any) -> Any:
            y = x + 1
            z = y + 2
            deep = [y * 3, {"deep": y * 4}]
            return OrderedDict({"add": z, "p3/out": y * 2, "x": z * 3, "mul": y, "last": deep})

    names = [v.name for v in import_torch(Named(), IMAGE).outputs]
    assert names == ["add", "p3_out", "x_1", "mul", "last", "last_deep"]


def test_an_example_instead_of_a_shape() -> None:
    with pytest.raises(InputError, match=r"got a Tensor: give tuple\(x\.shape\)"):
        import_torch(nn.ReLU(), torch.zeros(IMAGE))


# -- what is said where torch fails ---------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(20)))

    def forward(self, x: Any) -> Any:
        y = self.layers(x)
        return y if y.sum() > 0 else -y


def test_a_failed_export_is_told_in_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(TraceError, match="must not branch on the elements") as caught:
        import_torch(Branching(), IMAGE)
    message = str(caught.value)
    line = Branching.forward.__code__.co_firstlineno + 2
    assert f"at {__file__}:{line}: " in message
    assert len(message) < 600
    assert caught.value.__cause__ is None
    assert capfd.readouterr().err == ""
    (report,) = tmp_path.glob("lucid-Branching-*.log")
    assert str(report) in message
    assert report.read_text().count("conv2d") > 20  # torch's graph, and its traceback
    assert "Traceback" in report.read_text()


def test_what_is_printed_while_all_is_well_is_passed_on(capfd: Any) -> None:
    class Talking(nn.Module):
        def forward(self, x: Any) -> Any:
            import sys

            print("working", file=sys.stderr)
            return x * 2

    import_torch(Talking(), IMAGE)
    assert "working" in capfd.readouterr().err


def test_no_report_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(TraceError, match="must not branch") as caught:
        import_torch(Branching(), IMAGE)
    assert "All that torch says" not in str(caught.value)


def test_float64_says_how_to_convert() -> None:
    with pytest.warns(UserWarning, match=r"module\.float\(\)"):
        import_torch(nn.Linear(6, 5).double(), (1, 6))
    with pytest.raises(InputError, match="float"):
        lucid.compile(nn.Linear(6, 5), (1, 6))(np.zeros((1, 6)))
