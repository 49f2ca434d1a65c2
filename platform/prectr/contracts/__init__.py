"""Contracts between rooms and with users: table schemas, the HTTP protocol, model configuration, tensor types.

Types only: nothing here reads, computes or imports a heavy library.
"""
