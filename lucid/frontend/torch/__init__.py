"""PyTorch modules as graphs: `import_torch(module, input_shape)`.

`program` exports the module, `importer` walks what comes out, and one function for each operator of
PyTorch's (`emits` in `writer`) says what it is in Lucid's ops.
"""

from lucid.frontend.torch.importer import import_torch

__all__ = ["import_torch"]
