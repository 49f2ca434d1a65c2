"""Online experiments: analysis of an A/B test, its simulation, and off-policy estimates before a test.

The unit is the user: users are assigned to variants, so users are counted, resampled and compared. Every measure is a
ratio of two sums over the users of a variant; the denominator of a "per capita" measure is the number of users.

Reading order: `config`, `measures`, `exposures` (input), `ratio` (delta method), `cuped`, `resplit` (A/A tests),
`analysis` (sample ratio, always-valid bounds and the report). `replay` (a test on the simulated marketplace), `truth`
(its estimates against the true effects) and `off_policy` are independent of these. Definitions and examples are in
docs/experiments.md.
"""
