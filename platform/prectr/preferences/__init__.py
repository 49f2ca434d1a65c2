"""Relevance preferences: which relevance levels users click, by user, query and category.

Vectorised functions on one block of rows or one range of keys. They start no Ray tasks: `jobs/mine_preferences.py`
spreads the blocks over the machines.
"""
