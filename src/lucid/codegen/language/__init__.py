"""The language that kernels are written in: builder, values, elements, vector math, LLVM."""
