"""What a table of rankers holds: the same rows of the test day for all, every figure with its definition and spread.

Reading order: `contestants` (who is compared), `day` (the rows, their slices, the lists of candidates), `scores` (what
a ranker, a bound or a file of the user's says of them), `figures` (which metrics, and how sure they are), `curves`
(what the report draws). `truth/` of a simulated log is opened by `truth` and nowhere else.
"""
