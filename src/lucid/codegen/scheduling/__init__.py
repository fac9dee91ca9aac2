"""The choice of kernels: a cost model, what a tuner may try, and why it came out as it did."""
