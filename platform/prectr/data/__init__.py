"""Canonical tables of a log: validation, importers, the simulated marketplace, reading, judgments, parts of a log.

It must not know labels, preferences or models.
"""
