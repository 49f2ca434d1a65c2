"""Baselines of the main table, behind the same interface as PRECTR-V2."""
