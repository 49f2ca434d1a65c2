"""The teacher: a causal language model that grades pairs of query and item with one label token.

Reading order: `split` (who may be trained on), `prompt` (what is asked), `selection` (which pairs), `ledger` (what is
already known), `asking` (plan, ask, commit), `engines` and the engine of your choice, `label_quality`; then
`teacher_training` (a teacher of one's own) and `interactive` (one pair at a time).
"""
