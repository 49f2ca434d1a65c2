"""Importers: published data sets and mapped logs, as canonical tables. One file an adapter.

    config.py     what a user decides about a source (settings section `importing`)
    source.py     what an adapter says about its source: files, readers, grades, what is lacking or assumed
    reading.py    CSV, JSON lines and Parquet files, a chunk at a time
    rows.py       raw columns to canonical ones; what does not fit is noted as the row's fault
    publish.py    checks, quarantine and publication, the same as of `prectr validate`
    wands.py, esci.py, home_depot.py, kuaisearch.py, diginetica.py    the published layouts
    mapping_config.py, mapping.py                                     any other log, described in YAML

An adapter never invents: what a source does not hold is left out, and an assumption is made only where a setting asks
for it; both are printed and stand in the manifest.
"""
