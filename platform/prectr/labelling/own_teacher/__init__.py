"""A causal language model fitted to the judgments of a log: the demo's teacher, an ordinary checkpoint."""
