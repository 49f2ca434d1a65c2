"""What mining found, for people: one query in the terminal, a page of plots, and a check against a simulator's truth.

Reads artifacts and writes none. Only `truth.py` opens `truth/`.
"""
