"""PRECTR-V2 on Ray: from a search log to a served ranker of joint relevance and click-through rate.

This package is the library: tables, labelling, relevance, preferences, features, training, bundles, scoring and
metrics. It imports nothing of the folders beside it (`models`, `jobs`, `serve_apps`).

>>> from prectr import Tables, __version__
>>> Tables.__module__
'prectr.data.tables'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prectr.core.version import __version__

if TYPE_CHECKING:
    from prectr.data.tables import Tables
    from prectr.ranking.scoring import Scorer
    from prectr.serving.client import Client

__all__ = ["Client", "Scorer", "Tables", "__version__"]

_MODULES = {"Client": "prectr.serving.client", "Scorer": "prectr.ranking.scoring", "Tables": "prectr.data.tables"}
"""Names that are imported when they are first used, so that `import prectr` is light."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'prectr' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
