"""Compiled models as files: the container, the tensors and the contents of `.lucid` files.

docs/artifact-format.md describes them. Who writes is `lucid.runtime.saving`, who loads is
`lucid.loading`; this package knows the graph language only.
"""
