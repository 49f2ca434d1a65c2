"""The training loop of rankers, on one or several Ray Train workers, and the search for its settings.

Reading order: `config`; `ranker_loop` (the loop, top to bottom) with `shards`, `data`, `step`, `optimiser`,
`checkpoint`, `workers` and `tracking`; `start` and `validation_day` (checks before a run); `sweep_config`,
`sweep_search`, `sweep_trials`, `sweep_progress` and `sweep_ledger` (the search).

The room knows no model: a caller passes a function that builds the ranker.
"""
