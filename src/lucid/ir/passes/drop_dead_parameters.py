"""drop-dead-parameters: removes parameters that nothing reads."""

from __future__ import annotations

from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite_graph

drop_dead_parameters = Pass("drop-dead-parameters", "Forget parameters that nothing reads")


@rewrite_graph(drop_dead_parameters)
def unread(rewriter: Rewriter) -> None:
    """w == nothing, for a parameter that nobody reads

    Such as those of an unused head.

    Always legal: parameters have no effect of their own. Source tensors then needed by no recipe
    are not asked of a checkpoint any more.
    """
    for parameter in list(rewriter.graph.parameters.values()):
        if not rewriter.graph.is_used(parameter):
            rewriter.drop_parameter(parameter)
