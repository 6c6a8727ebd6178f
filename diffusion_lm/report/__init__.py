"""From folders of evaluations to one page: the paper's tables and figures, ours beside them."""
