"""Ranking with a bundle: features of a request as of now, the scorer, and the final order.

The same code scores offline and online. HTTP and Ray Serve are in `serve_apps/`.
"""
