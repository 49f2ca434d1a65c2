"""One file a Ray job, each runnable as `python -m jobs.NAME`, and the command line `prectr` over all of them."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (code that travels with a job meets whatever Python the head has)
    sys.exit(f"prectr: needs Python 3.11 or newer; this is {sys.version.split()[0]}. Give the nodes the same one.")
