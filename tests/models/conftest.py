"""A tiny encoder, small sizes and random batches for the model tests."""

from collections.abc import Callable, Iterator

import pytest
import torch

from models.encoder import TextEncoder, build_encoder
from prectr.contracts.model_config import EncoderConfig, FeatureSizes
from prectr.contracts.types import RankerInputs, RankerLabels

MakeBatch = Callable[..., tuple[RankerInputs, torch.Tensor, RankerLabels]]


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """One seed, and one thread: on tiny tensors threads only wait for each other."""
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def sizes() -> FeatureSizes:
    behaviour = {"query": 11, "category": 6, "brand": 5, "price": 4, "level": 5, "clicked": 3, "recency": 4}
    return FeatureSizes(
        categorical={"category": 6, "device": 3},
        numeric=3,
        match=6,
        tolerance=4,
        query_preference=5,
        behaviour=behaviour,
        user_group=3,
        text=8,
        positions=10,
    )


@pytest.fixture
def encoder() -> TextEncoder:
    return build_encoder(EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0), 40)


@pytest.fixture
def make_batch(sizes: FeatureSizes) -> MakeBatch:
    def make(rows: int, user_length: int = 5, query_length: int = 6) -> tuple[RankerInputs, torch.Tensor, RankerLabels]:
        def ids(cardinalities: list[int], *shape: int) -> torch.Tensor:
            return torch.stack([torch.randint(0, cardinality, shape) for cardinality in cardinalities], -1)

        fields = list(sizes.behaviour.values())
        levels = torch.randn(rows, 4).mul(2).log_softmax(-1)
        inputs = RankerInputs(
            categorical=ids(list(sizes.categorical.values()), rows),
            numeric=torch.randn(rows, sizes.numeric),
            match=torch.cat([levels, torch.rand(rows, sizes.match - 4)], -1),
            tolerance=torch.randn(rows, sizes.tolerance),
            user_behaviours=ids(fields, rows, user_length),
            user_mask=torch.rand(rows, user_length) < 0.6,
            query_behaviours=ids([*fields, sizes.user_group], rows, query_length),
            query_mask=torch.rand(rows, query_length) < 0.6,
            query_preference=torch.randn(rows, sizes.query_preference),
            history_counts=torch.rand(rows, 2) * 3,
            target=ids(fields[:4], rows),
        )
        labels = RankerLabels(
            click=(torch.rand(rows) < 0.4).float(),
            position=torch.randint(1, 12, (rows,)),
            level_soft=levels.exp(),
            level_known=torch.rand(rows) < 0.9,
        )
        return inputs, torch.randn(rows, sizes.text), labels

    return make
