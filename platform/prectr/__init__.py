"""PRECTR-V2 on Ray: from a search log to a served ranker of joint relevance and click-through rate.

This package is the library: tables, mining, labelling, features, training loop, bundles, scoring and metrics.
It imports nothing of the rooms beside it (`models`, `jobs`, `serve_apps`); see DESIGN in the README.
"""

__version__ = "0.1.0"
