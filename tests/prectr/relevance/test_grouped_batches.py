"""Batches of the distillation: every row once an epoch, the rows of a query together."""

import numpy as np

from prectr.relevance.distillation import GroupedBatches


def test_an_epoch_holds_every_row_once_and_keeps_queries_together() -> None:
    query = np.repeat(np.arange(40), 12)
    lengths = np.random.default_rng(0).integers(5, 40, len(query))
    batches = GroupedBatches(query, lengths, batch_size=32, group_size=4).epoch(np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(len(query)))
    assert max(map(len, batches)) == 32
    # Dealt at random, a batch of 32 of 480 rows would hold about 22 of the 40 queries.
    assert np.mean([len(set(query[batch])) for batch in batches]) <= 9
