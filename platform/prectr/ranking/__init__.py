"""A bundle answers requests: features as of now, the scorer, and the final order.

The same code scores offline and online.
"""
