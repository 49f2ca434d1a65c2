"""Schemas of tables, the HTTP protocol, model configuration and tensor types.

Rooms and users rely on them. They are types only: they must not read files, compute, or import a heavy library.
"""
