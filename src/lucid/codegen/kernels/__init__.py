"""The kernels: what their code depends on, what they are told at run time, and their loops."""
