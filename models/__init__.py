"""Neural modules and losses: encoder, PRECTR, PRECTR-V2, baselines.

Reading order: `ranker` (the interface), `encoder`, `rsl`, `base`, `fusion`, `incentive`, `prectr`, `debias`,
`prectr_v2`.
This room uses no Ray and neither reads nor writes files. From the library it imports types and configuration only.
"""
