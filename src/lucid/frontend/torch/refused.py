"""What an import of a PyTorch module is given up with, node by node."""


class Refused(Exception):  # noqa: N818  # what happened, not an error to catch elsewhere
    """Something that the graph cannot express; becomes part of an UnsupportedError."""


class DependsOnElements(Refused):
    """A size that depends on the elements of a tensor, which are known only when it runs."""
