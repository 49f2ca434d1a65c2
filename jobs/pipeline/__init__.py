"""The whole chain as one job, its daily mode, and the rollout of new models."""
