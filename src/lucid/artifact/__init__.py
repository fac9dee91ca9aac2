"""Compiled models as files: the container, the tensors and the contents of `.lucid` files.

docs/artifact-format.md describes them. `lucid.runtime.saving` writes them and `lucid.loading` loads
them; this package depends on the IR only.
"""
