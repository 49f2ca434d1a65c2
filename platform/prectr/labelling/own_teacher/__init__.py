"""Training of a teacher on judged pairs: `data`, `model`, `logits` (forward pass), `training` (loop of one worker).

Reads no tables and starts no Ray; `jobs/train_teacher.py` does.
"""
