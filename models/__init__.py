"""Neural modules and losses: encoder, PRECTR, PRECTR-V2, baselines.

Reading order: `ranker` (the interface), `encoder`, `rsl`, `base`, `fusion`, `incentive`, `prectr`, `debias`,
`prectr_v2`.
No Ray and no I/O in this room; from the library only types and configuration.
"""
