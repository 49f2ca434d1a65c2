"""One file a Ray job, each runnable as `python -m jobs.NAME`, and the command line `prectr` over all of them."""
