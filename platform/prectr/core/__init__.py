"""Errors, configuration, artifacts, storage, Ray sessions, progress lines and text normalisation.

Every other room may import this one. It must not know a table, a model or a stage.
"""
