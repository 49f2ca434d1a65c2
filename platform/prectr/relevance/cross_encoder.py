"""Use of the distilled encoder in other libraries: `transformers`, and the CrossEncoder of sentence-transformers.

The artifact is an ordinary BERT with an ordinary tokenizer and reads pairs as `tokenizer(query, title)` encodes them.
One thing differs: its token types also mark exact matches, which a tokenizer file cannot express:

    model = CrossEncoder("encoder")
    mark_matches(model.tokenizer)
    model.predict([("nokia 3310", "Nokia 3310 blue")], apply_softmax=True)   # probabilities of the four levels

An encoder distilled with `distill.match_marks=false` needs no `mark_matches`, but is much worse when trained on little
text. Pairs longer than the encoder's `max_length` are cut slightly differently from `tokenisation`: a query may keep
more than half of the tokens if its title is short.
"""

from typing import Any

import numpy as np

from prectr.relevance.tokenisation import PairTokens


def mark_matches(tokenizer: Any) -> Any:
    """Change a tokenizer of an encoder artifact, in place, so that it marks exact matches; return it.

    Call it with `return_tensors` ("pt" or "np") and padding on the right, as CrossEncoder does.
    """
    tokenizer_class: Any = type(tokenizer)

    class MarkingTokenizer(tokenizer_class):
        """The same tokenizer with token types 2 and 3 for tokens that the other segment holds too."""

        def __call__(self, *texts: Any, **options: Any) -> Any:
            encoded = super().__call__(*texts, **options)
            types: Any = _token_types(
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
    """Make a student that was trained without marks score marked pairs like unmarked ones.

    Everything after `distill` marks matches, so the embeddings of the marked types are set to those of their segments.
    """
    import torch

    weight = model.base_model.embeddings.token_type_embeddings.weight
    with torch.no_grad():
        weight[2:] = weight[:2]


def _token_types(input_ids: np.ndarray, segments: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Compute token types with marks, int64 [P, L], from token ids and segments 0 and 1."""
    real = attention_mask.astype(bool)
    offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    first = (real & (segments == 0)).sum(axis=1)
    types = np.zeros(real.shape, np.int64)
    types[real] = PairTokens(input_ids[real], offsets, first.astype(np.int16)).token_types
    return types
