"""Offline evaluation of rankers on the test day: all rankers on the same rows, each figure with its interval.

Reading order: `contestants` (which models are compared), `day` (rows, slices and lists of candidates), `scores` (scores
of a bundle, a bound or a user's file), `figures` (metrics and intervals), `off_policy`, `curves` (data for the report's
pictures). Only `truth` opens `truth/` of a simulated log. `experiments/` analyses and simulates online tests.
"""
