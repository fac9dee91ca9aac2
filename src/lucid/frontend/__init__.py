"""The frontend: tensors, tracing, importers, and weight files."""
