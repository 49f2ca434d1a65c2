"""Training on Ray Train: one launcher that every training job shares."""
