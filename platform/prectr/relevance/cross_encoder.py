"""The distilled encoder in other libraries: `transformers`, and the CrossEncoder of sentence-transformers.

The artifact is an ordinary BERT with an ordinary tokenizer, and reads pairs as `tokenizer(query, title)` makes them,
except that its token types also mark exact matches, which no tokenizer file can say:

    model = CrossEncoder("encoder")
    mark_matches(model.tokenizer)
    model.predict([("nokia 3310", "Nokia 3310 blue")], apply_softmax=True)   # probabilities of the four levels

An encoder distilled with `distill.match_marks=false` needs no `mark_matches`, and is much worse from little text. Pairs
longer than the encoder's `max_length` are cut a little otherwise than here: a query keeps what its title leaves.
"""

from typing import Any

import numpy as np

from prectr.relevance.tokenisation import PairTokens


def mark_matches(tokenizer: Any) -> Any:
    """Make a tokenizer of an encoder artifact mark exact matches, in place; returns it.

    It must be called with `return_tensors` ("pt" or "np") and padding on the right, as CrossEncoder does.
    """
    plain: Any = type(tokenizer)

    class MarkingTokenizer(plain):
        """As before, with token types 2 and 3 for tokens that the other segment holds too."""

        def __call__(self, *texts: Any, **options: Any) -> Any:
            encoded = super().__call__(*texts, **options)
            types: Any = _marked(
                *(np.asarray(encoded[name]) for name in ("input_ids", "token_type_ids", "attention_mask"))
            )
            if options.get("return_tensors") == "pt":
                import torch

                types = torch.from_numpy(types)
            encoded["token_type_ids"] = types
            return encoded

    tokenizer.__class__ = MarkingTokenizer
    return tokenizer


def forget_marks(model: Any) -> None:
    """Let the marks of a student that was trained without them mean nothing, so that marked pairs score as plain ones.

    Everything after `distill` marks matches; the embeddings of marked types become those of their segments.
    """
    import torch

    weight = model.base_model.embeddings.token_type_embeddings.weight
    with torch.no_grad():
        weight[2:] = weight[:2]


def _marked(input_ids: np.ndarray, segments: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Token types with marks, int64 [P, L], from segments 0 and 1."""
    real = attention_mask.astype(bool)
    offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    first = (real & (segments == 0)).sum(axis=1)
    types = np.zeros(real.shape, np.int64)
    types[real] = PairTokens(input_ids[real], offsets, first.astype(np.int16)).token_types
    return types
