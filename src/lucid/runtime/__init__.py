"""The runtime of compiled models: kernels in memory and on disk, weights, threads, calls."""
