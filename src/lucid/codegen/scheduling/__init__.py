"""The choice of kernels: a cost model, the candidates of the tuner, and explanations of choices."""
