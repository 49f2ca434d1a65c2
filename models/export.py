"""Export of rankers and encoders to ONNX, as bytes; the caller writes them to files.

A ranker's inputs are named after the fields of RankerInputs plus `text`, its outputs after the fields of RankerOutput.
An encoder maps input_ids, token_type_ids, attention_mask and, with a match head, match -> text, level_logits. The
numbers of rows, behaviours, pairs and tokens are dynamic.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from models.encoder import TextEncoder
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes
from prectr.contracts.types import RankerInputs, RankerOutput

ENCODER_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
ENCODER_OUTPUTS = ("text", "level_logits")
RANKER_INPUTS = (*RankerInputs._fields, "text")
RANKER_OUTPUTS = RankerOutput._fields
_EXAMPLE_ROWS = 3  # torch.export treats dimensions of size 0 and 1 as constants
_STACK_TRACE = "pkg.torch.onnx.stack_trace"


class _FlatRanker(nn.Module):
    """A ranker that takes its inputs as separate arguments: their names become the graph's input names."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(
        self,
        categorical: Tensor,
        numeric: Tensor,
        match: Tensor,
        tolerance: Tensor,
        user_behaviours: Tensor,
        user_mask: Tensor,
        query_behaviours: Tensor,
        query_mask: Tensor,
        query_preference: Tensor,
        history_counts: Tensor,
        target: Tensor,
        text: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs = RankerInputs(
            categorical,
            numeric,
            match,
            tolerance,
            user_behaviours,
            user_mask,
            query_behaviours,
            query_mask,
            query_preference,
            history_counts,
            target,
        )
        return tuple(self.ranker(inputs, text))


def export_ranker(ranker: Ranker, sizes: FeatureSizes, user_length: int = 20, query_length: int = 30) -> bytes:
    """Export the ranker's position-free forward pass, without its encoder, as one ONNX file."""
    inputs = example_inputs(sizes, _EXAMPLE_ROWS, user_length, query_length)
    text = torch.zeros(_EXAMPLE_ROWS, sizes.text)
    rows = torch.export.Dim("rows")
    shapes = {name: {0: rows} for name in RANKER_INPUTS}
    for side in ("user", "query"):
        length = torch.export.Dim(f"{side}_length")
        shapes[f"{side}_behaviours"] = shapes[f"{side}_mask"] = {0: rows, 1: length}
    arguments = dict(zip(RANKER_INPUTS, (*inputs, text), strict=True))
    return _export(_FlatRanker(ranker), arguments, shapes, RANKER_OUTPUTS)


def export_encoder(encoder: TextEncoder) -> bytes:
    """Export the text encoder as one ONNX file."""
    # One tensor per input: torch.export merges inputs that are the same tensor.
    arguments = {name: torch.ones(_EXAMPLE_ROWS, 7, dtype=torch.int64) for name in ENCODER_INPUTS}
    arguments["token_type_ids"].zero_()
    pairs = torch.export.Dim("pairs")
    shape = {0: pairs, 1: torch.export.Dim("tokens", max=_longest(encoder))}
    shapes: dict[str, dict[int, torch.export.Dim]] = dict.fromkeys(ENCODER_INPUTS, shape)
    if encoder.match_head is not None:
        arguments["match"] = torch.zeros(_EXAMPLE_ROWS, len(encoder.match_head.mean))
        shapes["match"] = {0: pairs}
    with _first_token_only(encoder):
        return _export(encoder, arguments, shapes, ENCODER_OUTPUTS)


class _FirstTokenLayer(nn.Module):
    """A BERT layer that computes the output of the first token only: [P, L, d] -> [P, 1, d].

    The classifier reads only the first token of the last layer. Queries, attention rows and feed-forward of the other
    tokens would be wasted: a quarter of all work with 3 layers. Keys and values of all tokens are still needed.
    """

    def __init__(self, layer: BertLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: object, **__: object) -> Tensor:
        """Same as the layer's forward; arguments that only decoders use are ignored."""
        first, attention = hidden_states[:, :1], self.layer.attention
        query, key, value = (
            project(states).unflatten(-1, (attention.self.num_attention_heads, -1)).transpose(1, 2)
            for project, states in (
                (attention.self.query, first),
                (attention.self.key, hidden_states),
                (attention.self.value, hidden_states),
            )
        )
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.layer.feed_forward_chunk(attention.output(mixed.transpose(1, 2).flatten(2), first))
        return output


@contextmanager
def _first_token_only(encoder: TextEncoder) -> Iterator[None]:
    """During an export, let the last layer of a BERT compute its first token only; leave other encoders unchanged."""
    layers: Any = getattr(getattr(getattr(encoder.model, "bert", None), "encoder", None), "layer", None)
    last = None if layers is None else layers[-1]
    if not isinstance(last, BertLayer):
        yield
        return
    layers[-1] = _FirstTokenLayer(last)
    try:
        yield
    finally:
        layers[-1] = last


def example_inputs(sizes: FeatureSizes, rows: int, user_length: int = 20, query_length: int = 30) -> RankerInputs:
    """Build a batch of unknown ids and zeros in the right shapes: unknown users, unknown queries."""
    fields = len(sizes.behaviour)
    return RankerInputs(
        categorical=torch.zeros(rows, len(sizes.categorical), dtype=torch.int64),
        numeric=torch.zeros(rows, sizes.numeric),
        match=torch.zeros(rows, sizes.match),
        tolerance=torch.zeros(rows, sizes.tolerance),
        user_behaviours=torch.zeros(rows, user_length, fields, dtype=torch.int64),
        user_mask=torch.zeros(rows, user_length, dtype=torch.bool),
        query_behaviours=torch.zeros(rows, query_length, fields + 1, dtype=torch.int64),
        query_mask=torch.zeros(rows, query_length, dtype=torch.bool),
        query_preference=torch.zeros(rows, sizes.query_preference),
        history_counts=torch.zeros(rows, 2),
        target=torch.zeros(rows, 4, dtype=torch.int64),
    )


def _longest(encoder: TextEncoder) -> int:
    return int(getattr(encoder.model.config, "max_position_embeddings", 512))


def _export(
    module: nn.Module,
    arguments: dict[str, Tensor],
    dynamic_shapes: dict[str, dict[int, torch.export.Dim]],
    output_names: tuple[str, ...],
) -> bytes:
    with _evaluating(module), torch.no_grad():
        program = torch.onnx.export(
            module,
            kwargs=arguments,
            dynamic_shapes=dynamic_shapes,
            output_names=list(output_names),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        # Stack traces hold the paths of this machine; without them every machine exports the same bytes.
        kept = [entry for entry in node.metadata_props if entry.key != _STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    exported: bytes = model.SerializeToString(deterministic=True)
    return exported


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and silence the exporter's log; restore both afterwards."""
    training = {part: part.training for part in module.modules()}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    module.eval()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for part, mode in training.items():
            part.training = mode
