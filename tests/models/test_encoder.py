import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

from models.encoder import TextEncoder, build_encoder
from models.export import export_encoder
from prectr.contracts.model_config import EncoderConfig


def test_text_is_what_the_classifier_reads_for_any_architecture() -> None:
    tokens = torch.tensor([[2, 9, 3, 7], [2, 5, 3, 0]])
    mask = (tokens > 0).long()
    config = DistilBertConfig(vocab_size=40, dim=8, n_heads=2, n_layers=1, hidden_dim=16, num_labels=4)
    other = TextEncoder(DistilBertForSequenceClassification(config))  # takes no token types, has a pre-classifier
    for encoder in (build_encoder(EncoderConfig(layers=1, width=8, heads=2, feed_forward=16), 40), other):
        encoder.eval()
        text, logits = encoder(tokens, torch.zeros_like(tokens), mask)
        assert text.shape == (2, encoder.width)
        assert torch.allclose(encoder.classifier(text), logits, atol=1e-6)


def _vivid(encoder: TextEncoder) -> None:
    """As vivid as a trained one; a fresh one says nearly the same of every pair, masked or not."""
    encoder.eval()
    with torch.no_grad():
        for matrix in (parameter for parameter in encoder.parameters() if parameter.dim() > 1):
            matrix.mul_(20)


def test_padding_never_changes_a_vector(encoder) -> None:
    _vivid(encoder)
    tokens = torch.tensor([[2, 9, 3, 7, 3]])
    padded = torch.cat([tokens, torch.zeros(1, 6, dtype=torch.int64)], 1)
    short, _ = encoder(tokens, torch.zeros_like(tokens), torch.ones_like(tokens))
    long, _ = encoder(padded, torch.zeros_like(padded), (padded > 0).long())
    assert torch.allclose(short, long, atol=1e-6)


def test_checkpoint_is_an_ordinary_hugging_face_model(encoder, tmp_path) -> None:
    encoder.model.save_pretrained(tmp_path)
    again = TextEncoder(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    tokens = torch.tensor([[2, 9, 3]])
    arguments = (tokens, torch.zeros_like(tokens), torch.ones_like(tokens))
    # The same weights; but a product of matrices may depend on where they lie in memory.
    torch.testing.assert_close(encoder.eval()(*arguments)[0], again.eval()(*arguments)[0], rtol=1e-6, atol=1e-6)


def test_default_student_has_the_published_size() -> None:
    parameters = sum(p.numel() for p in build_encoder(EncoderConfig(), 8192).parameters())
    assert 1_500_000 < parameters < 2_000_000


def test_a_wrong_number_of_labels_is_refused() -> None:
    config = DistilBertConfig(vocab_size=40, dim=8, n_heads=2, n_layers=1, hidden_dim=16, num_labels=2)
    with pytest.raises(ValueError, match="has 2 labels"):
        TextEncoder(DistilBertForSequenceClassification(config))


def test_exported_encoder_equals_eager_with_padding(encoder) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder.train()
    session = onnxruntime.InferenceSession(export_encoder(encoder))
    assert encoder.training
    encoder.eval()
    for pairs, length in ((1, 4), (7, 11)):
        tokens = torch.randint(1, 40, (pairs, length))
        mask = torch.ones_like(tokens)
        mask[0, 3:] = 0
        types = torch.randint(0, 2, tokens.shape)
        feed = {"input_ids": tokens.numpy(), "token_type_ids": types.numpy(), "attention_mask": mask.numpy()}
        text, logits = session.run(["text", "level_logits"], feed)
        with torch.no_grad():
            expected_text, expected_logits = encoder(tokens, types, mask)
        assert torch.allclose(torch.from_numpy(text), expected_text, atol=1e-4)
        assert torch.allclose(torch.from_numpy(logits), expected_logits, atol=1e-4)


def test_text_and_level_logits_by_hand(encoder) -> None:
    """h is what a plain BERT pools of its first token, z = W h + b."""
    _vivid(encoder)
    tokens, types = torch.tensor([[2, 9, 3, 7], [2, 5, 3, 0]]), torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
    mask = (tokens > 0).long()
    weight, bias = torch.arange(32.0).view(4, 8) / 10, torch.tensor([1.0, -2.0, 3.0, 0.5])
    with torch.no_grad():
        encoder.classifier.weight.copy_(weight)
        encoder.classifier.bias.copy_(bias)
        text, logits = encoder(tokens, types, mask)
        bert = encoder.model.bert
        first = bert(input_ids=tokens, token_type_ids=types, attention_mask=mask).last_hidden_state[:, 0].numpy()
    pooled = np.tanh(first @ bert.pooler.dense.weight.detach().numpy().T + bert.pooler.dense.bias.detach().numpy())
    np.testing.assert_allclose(text, pooled, atol=1e-5)
    np.testing.assert_allclose(logits, pooled @ weight.numpy().T + bias.numpy(), atol=1e-5)


def test_masked_tokens_are_not_read_and_token_types_are(encoder) -> None:
    _vivid(encoder)
    tokens, mask = torch.tensor([[2, 9, 3, 7, 3]]), torch.tensor([[1, 1, 1, 0, 0]])
    types = torch.tensor([[0, 0, 1, 1, 1]])
    text, _ = encoder(tokens, types, mask)
    other, _ = encoder(torch.tensor([[2, 9, 3, 30, 31]]), torch.tensor([[0, 0, 1, 0, 0]]), mask)
    assert torch.allclose(text, other, atol=1e-6)
    assert not torch.allclose(text, encoder(tokens, torch.zeros_like(types), mask)[0], atol=1e-2)
