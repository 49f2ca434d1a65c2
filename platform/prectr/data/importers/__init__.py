"""Importers of published data sets and of mapped logs into canonical tables. Each source has one adapter file.

    config.py     settings of the sources (section `importing`)
    import_tables.py  checks, quarantine and publication, as in `prectr validate`
    wands.py, esci.py, home_depot.py, kuaisearch.py, diginetica.py    adapters of published data sets
    mapping_config.py, flags.py, mapping.py                           any other log, described in YAML

An adapter must not invent data. It leaves out what the source does not hold, and it makes an assumption only if a
setting asks for it. Both are printed and stored in the manifest.
"""
