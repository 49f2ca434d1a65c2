"""Text relevance without the language model: lexical baseline and features, student encoder, batch scoring.

Reading order: `lexical` (shared words), `tokenisation` (token pairs), `distillation_data`, `distillation_training`,
`pair_encoder` and `encoder_session` (the encoder in ONNX Runtime), `batch_scoring`, and `pairs` (read the scored
pairs).
This room must not import `labelling` or rooms of a higher layer.
"""
