"""Labelling: a causal language model, the teacher, grades pairs of query and item with one label token.

Reading order: `prompt` (the question), `selection` (the pairs), `ledger` (answers of earlier runs), `label_run` (plan a
run, ask, commit), `engines/` (ways to run a teacher), `calibration` and `label_quality`; then `own_teacher/` (train a
teacher) and `teacher_scorer` (grade a few pairs at a time).

Which queries may be trained on is decided in `prectr.data.judgments`. This room imports neither `relevance` nor any room
of a higher layer.
"""
