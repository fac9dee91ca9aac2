"""PyTorch modules as graphs: `import_torch(module, input_shape)`.

`program` exports the module, `importer` walks what comes out, and one function for each operator of
PyTorch's (`emits` in `writer`) says what it is in Lucid's ops.
"""

from lucid.errors import MissingPackageError

try:
    from lucid.frontend.torch.importer import import_torch
    from lucid.frontend.torch.program import module_of
except ImportError as error:
    raise MissingPackageError(
        f"reading PyTorch modules needs torch 2.6 or later: `pip install torch` ({error})"
    ) from error

__all__ = ["import_torch", "module_of"]
