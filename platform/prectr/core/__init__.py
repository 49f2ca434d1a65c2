"""Foundations that know nothing of search: errors, configuration, artifacts, storage, Ray, progress, text.

It must not know a table, a model or a stage; every other room may import it.
"""
