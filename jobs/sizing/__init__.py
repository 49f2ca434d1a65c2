"""Scale on paper: what a log of a given size would cost, from unit costs that this repository's benchmarks measured.

`unit_costs.yaml` holds the measured figures, `load.py` what is asked, `stages.py` work and bytes of each stage,
`structures.py` what one process or machine has to hold whole, `calculator.py` the answer. Pure functions; no Ray.
"""
