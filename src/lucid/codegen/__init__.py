"""From an optimised graph to a Program of kernel calls, and from kernels to object code."""
