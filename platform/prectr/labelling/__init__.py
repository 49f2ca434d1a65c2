"""The teacher: a causal language model that grades pairs of query and item with one label token.

Reading order: `split` (who may be trained on), `prompt` (what is asked), `teacher_training`, `selection` (which pairs),
`ledger` (what is already known), the engines, `calibration`, `quality`.
"""
