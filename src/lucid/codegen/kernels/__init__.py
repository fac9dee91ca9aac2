"""The kernels: their specifications, their run-time arguments, and their loops."""
