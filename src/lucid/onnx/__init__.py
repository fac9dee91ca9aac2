"""ONNX, both ways: `writer` makes a model of a graph, `reader` a graph of a model.

How each operator is written and how it is read stand side by side in `operators`, one file a
family, and register themselves in the one `table`. Files are opened by `lucid.frontend.onnx`.
"""

from lucid.onnx import operators
from lucid.onnx.reader import reader_of
from lucid.onnx.table import READERS, WRITERS
from lucid.onnx.writer import writer_of

__all__ = ["READERS", "WRITERS", "operators", "reader_of", "writer_of"]
