"""Baselines against torch-rechub's layers: the same weights must give the same logits.

Its layers are put together as the papers say. Two things of theirs are taken out, because the papers do not have them
(batch normalisation) or ours differ by choice (GELU in place of ReLU inside the networks); their CIN has a ReLU that
the paper's has not, so it is compared where everything is positive and the ReLU does nothing.
"""

import pytest
import torch
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.basic.layers import CIN, FM, LR, MLP, EmbeddingLayer
from torch_rechub.models.ranking.din import ActivationUnit

from models.features import FieldEmbeddings
from models.registry import build_ranker
from prectr.contracts.model_config import BaselineConfig, ModelConfig

WIDTH = 4
HIDDEN = (6, 5)


def built(name, sizes, encoder):
    """A baseline whose weights are all random and large enough to matter."""
    settings = BaselineConfig(hidden=HIDDEN, embedding=WIDTH, interaction=(3, 2), behaviour_width=WIDTH)
    ranker = build_ranker(ModelConfig(name=name, baseline=settings), sizes, encoder)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return ranker.eval()


def their_network(ours: nn.Sequential) -> MLP:
    linear = [layer for layer in ours if isinstance(layer, nn.Linear)]
    theirs = MLP(linear[0].in_features, dims=[layer.out_features for layer in linear[:-1]])
    for number, layer in enumerate(theirs.mlp):
        if isinstance(layer, nn.BatchNorm1d):
            layer.eps = 0.0  # mean 0 and variance 1: nothing is left of it
        elif isinstance(layer, nn.ReLU):
            theirs.mlp[number] = nn.GELU()
    copies = [layer for layer in theirs.mlp if isinstance(layer, nn.Linear)]
    for copy, layer in zip(copies, linear, strict=True):
        copy.load_state_dict(layer.state_dict())
    return theirs.eval()


def their_fields(ours: FieldEmbeddings, sizes, width: int = WIDTH):
    """A function of ids [B, F] to embeddings [B, F, width]."""
    features = [SparseFeature(name, rows, embed_dim=width) for name, rows in sizes.categorical.items()]
    layer = EmbeddingLayer(features)
    with torch.no_grad():
        for number, name in enumerate(sizes.categorical):
            layer.embed_dict[name].weight.copy_(ours.rows_of(number))
    return lambda ids: layer({name: ids[:, number] for number, name in enumerate(sizes.categorical)}, features)


def their_linear(fields: FieldEmbeddings, numbers: nn.Linear, sizes):
    """Logistic regression over one-hot fields and numbers, as one vector: [B, F], [B, N] -> [B, 1]."""
    one_hot = sum(sizes.categorical.values())
    layer = LR(one_hot + numbers.in_features)
    with torch.no_grad():
        layer.fc.weight.copy_(torch.cat([fields.table.T, numbers.weight], 1))
        layer.fc.bias.copy_(numbers.bias)

    def logit(inputs) -> torch.Tensor:
        parts = [
            nn.functional.one_hot(inputs.categorical[:, number], rows).float()
            for number, rows in enumerate(sizes.categorical.values())
        ]
        return layer(torch.cat([*parts, inputs.numeric], 1))

    return logit


def assert_same(ranker, inputs, text, theirs: torch.Tensor) -> None:
    ours = ranker(inputs, text).click_logit
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs.squeeze(-1), rtol=1e-5, atol=1e-5)


def test_lr(sizes, encoder, make_batch) -> None:
    ranker = built("lr", sizes, encoder)
    inputs, text, _ = make_batch(32)
    assert_same(ranker, inputs, text, their_linear(ranker.fields, ranker.numbers, sizes)(inputs))


def test_dnn(sizes, encoder, make_batch) -> None:
    ranker = built("dnn", sizes, encoder)
    inputs, text, _ = make_batch(32)
    embedded = their_fields(ranker.fields, sizes)(inputs.categorical)
    assert_same(ranker, inputs, text, their_network(ranker.deep)(torch.cat([embedded.flatten(1), inputs.numeric], 1)))


def test_wide_deep(sizes, encoder, make_batch) -> None:
    ranker = built("wide-deep", sizes, encoder)
    inputs, text, _ = make_batch(32)
    wide = their_linear(ranker.wide_fields, ranker.wide_numbers, sizes)(inputs)
    embedded = their_fields(ranker.deep_fields, sizes)(inputs.categorical)
    deep = their_network(ranker.deep)(torch.cat([embedded.flatten(1), inputs.numeric], 1))
    assert_same(ranker, inputs, text, wide + deep)


@pytest.mark.parametrize("name", ["deepfm", "xdeepfm"])
def test_factorisation_models(sizes, encoder, make_batch, name) -> None:
    ranker = built(name, sizes, encoder)
    inputs, text, _ = make_batch(32)
    if name == "xdeepfm":
        inputs = inputs._replace(numeric=inputs.numeric.abs())
        with torch.no_grad():
            for parameter in (ranker.fields.table, ranker.number_vectors, *ranker.interaction.layers.parameters()):
                parameter.abs_()
    linear = their_linear(ranker.linear_fields, ranker.linear_numbers, sizes)(inputs)
    embedded = their_fields(ranker.fields, sizes)(inputs.categorical)
    rows = torch.cat([embedded, inputs.numeric.unsqueeze(-1) * ranker.number_vectors], 1)
    deep = their_network(ranker.deep)(torch.cat([embedded.flatten(1), inputs.numeric], 1))
    crossed = FM()(rows) if name == "deepfm" else their_interaction(ranker.interaction, rows.shape[1])(rows)
    assert_same(ranker, inputs, text, linear + crossed + deep)


def their_interaction(ours, rows: int) -> CIN:
    theirs = CIN(rows, [layer.out_features for layer in ours.layers], split_half=False)
    with torch.no_grad():
        for copy, layer in zip(theirs.conv_layers, ours.layers, strict=True):
            # They number the pairs (i of X^0, j of X^{k-1}), we (j, i).
            pairs = layer.weight.unflatten(1, (-1, rows)).transpose(1, 2).flatten(1)
            copy.weight.copy_(pairs.unsqueeze(-1))
            copy.bias.zero_()
        theirs.fc.weight.copy_(ours.last.weight)
        theirs.fc.bias.zero_()
    return theirs


def test_din(sizes, encoder, make_batch) -> None:
    ranker = built("din", sizes, encoder)
    inputs, text, _ = make_batch(32)
    full = inputs._replace(user_mask=torch.ones_like(inputs.user_mask))  # their unit knows no mask
    unit = ActivationUnit(WIDTH, dims=[32], activation="relu")
    unit.attention = their_network(ranker.activation)
    first = unit.attention.mlp[0]
    with torch.no_grad():
        behaviour, target, difference, product = ranker.activation[0].weight.split(WIDTH, 1)
        # They read target, behaviour, target - behaviour, product; we behaviour, target, behaviour - target, product.
        first.weight.copy_(torch.cat([target, behaviour, -difference, product], 1))
    behaviours, target = ranker.behaviours(full.user_behaviours), ranker.behaviours(full.target)
    embedded = their_fields(ranker.fields, sizes)(full.categorical)
    parts = [embedded.flatten(1), full.numeric, target, unit(behaviours, target)]
    assert_same(ranker, full, text, their_network(ranker.deep)(torch.cat(parts, 1)))
