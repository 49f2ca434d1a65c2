"""Relevance preferences: which relevance levels people really click, per user, query and category.

Pure vectorised code on one block of rows; distribution over blocks is the job's business (`jobs/mine_preferences.py`).
"""
