"""Labelling: a causal language model, the teacher, grades pairs of query and item with one label token.

Reading order: `prompt` (the question), `selection` (the pairs), `ledger` (answers of earlier runs), `label_run` (plan a
run, ask, commit), `engines/` (ways to run a teacher), `calibration` and `label_quality`; then `own_teacher/` (train a
teacher) and `teacher_scorer` (grade a few pairs at a time).

`prectr.data.judgments` decides which queries may be trained on. This room must not import `relevance` or rooms of a
higher layer.
"""
