"""Exported rankers and encoders take batches and sequences of any length, and equal the eager ones."""

import numpy as np
import onnxruntime
import pytest
import torch

from models.encoder import build_encoder
from models.export import export_encoder, export_ranker
from models.registry import RANKERS, build_ranker
from prectr.contracts.model_config import EncoderConfig, ModelConfig


@pytest.mark.parametrize("name", sorted(RANKERS))
def test_a_ranker_takes_any_number_of_rows_and_behaviours(sizes, encoder, make_batch, name) -> None:
    """One export serves samples of other `user_behaviours` and `query_behaviours`, and a request of one candidate."""
    ranker = build_ranker(ModelConfig(name=name), sizes, encoder)
    with torch.no_grad():  # away from the start, where much is zero
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    exported = export_ranker(ranker.eval(), sizes)
    assert b"stack_trace" not in exported
    session = onnxruntime.InferenceSession(exported)
    taken = {node.name for node in session.get_inputs()}
    for rows, user_length, query_length in ((1, 20, 30), (1, 1, 1), (5, 3, 40)):
        inputs, text, _ = make_batch(rows, user_length, query_length)
        inputs.user_mask[0] = False  # an empty history
        with torch.no_grad():
            expected = ranker(inputs, text)
        feed = {
            field: tensor.numpy() for field, tensor in [*inputs._asdict().items(), ("text", text)] if field in taken
        }
        for field, answer in zip(expected._fields, session.run(list(expected._fields), feed), strict=True):
            np.testing.assert_allclose(answer, getattr(expected, field), atol=1e-4, err_msg=field)


def test_an_encoder_takes_one_pair_and_its_longest() -> None:
    config = EncoderConfig(layers=2, width=16, heads=2, feed_forward=32, max_length=64)
    encoder = build_encoder(config, 40).eval()
    exported = export_encoder(encoder)
    assert b"stack_trace" not in exported, "directories of this machine"
    session = onnxruntime.InferenceSession(exported)
    for pairs, length in ((1, 3), (1, 64), (9, 64)):
        tokens = torch.randint(1, 40, (pairs, length))
        types, mask = torch.randint(0, 2, tokens.shape), torch.ones_like(tokens)
        feed = {"input_ids": tokens.numpy(), "token_type_ids": types.numpy(), "attention_mask": mask.numpy()}
        with torch.no_grad():
            expected = encoder(tokens, types, mask)
        for answer, expected_output in zip(session.run(["text", "level_logits"], feed), expected, strict=True):
            np.testing.assert_allclose(answer, expected_output, atol=1e-4)
