"""Compiled models as libraries in C, which need neither Python nor Lucid to run.

A folder gets a header and a source in C99, which are made of templates, a static library of kernels
and tables, which Lucid writes itself, and the packed weights. docs/c.md says how they are used.
"""

from lucid.emit.folder import emit_c

__all__ = ["emit_c"]
