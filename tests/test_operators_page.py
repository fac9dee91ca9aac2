"""docs/operators.md says what the code does: `python docs/draw_operators.py` writes it."""

import pytest

from docs import draw_operators as page


def test_ops_are_those_of_the_page():
    assert page.ops_section() in page.FILE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_onnx_operators_are_those_of_the_page():
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    if onnx.defs.onnx_opset_version() < page.OPSET:
        pytest.skip("the page tells of operators that this package onnx does not know")
    assert page.onnx_section() in page.FILE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_torch_operators_are_those_of_the_page():
    pytest.importorskip("torch", reason="torch is not installed")
    written = page.FILE.read_text(encoding="utf-8")
    if f"(here torch {page.version()})" not in written:
        pytest.skip("the page tells of another version of torch")
    assert page.torch_section() in written


def test_refusals_are_found_in_what_a_reader_calls():
    def reader(call):
        if call.kind:
            raise UnsupportedError(f"with mode {call.kind}, of {len(call)}")
        call.refuse("never")

    assert page.refusals(reader, "lucid") == ["with mode *kind*, of *...*", "never"]


class UnsupportedError(Exception):
    pass
