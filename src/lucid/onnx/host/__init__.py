"""Operators that NumPy runs, between the graphs of a model."""
