"""How a model becomes a graph: tensors, the trace of a forward, and the reading of weight files."""
