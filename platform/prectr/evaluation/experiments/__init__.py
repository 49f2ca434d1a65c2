"""Experiments: what an online test says, how sure it may be, and what the randomised slice says before there is one.

The unit is the user: users are assigned, so users are what is counted, drawn and compared. Every measure is a ratio of
two sums over the users of a variant; for "per capita" the lower one is the number of users.

Files in reading order: `config`, `measures`, `exposures` (input), `sample_ratio`, `ratio` (delta method), `cuped`,
`sequential`, `resplit` (A/A on one's own users), `analysis` (all of it together), `report`; then `replay` (the
simulated marketplace with rankers) and `off_policy`, which stand alone. Definitions and examples are in
docs/experiments.md.
"""
