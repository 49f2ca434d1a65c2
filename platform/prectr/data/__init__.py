"""Reading and validating a log: tables, importers, the marketplace, judgments, parts and pairs.

It knows what a log is, and nothing of labels, preferences or models.
"""
