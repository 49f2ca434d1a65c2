"""Baselines of the main results table; they share the interface of PRECTR-V2."""
