"""Token pairs `[CLS] query [SEP] title [SEP]`: each distinct text is tokenised once, and numpy assembles the pairs.

Offline scoring, training and the online scorer all use `PairTokeniser`, so that a pair always has the same token ids.
This module needs the `tokenizers` library, and must not import torch or transformers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

TOKENIZER_FILE = "tokenizer.json"
CONTINUED = "##"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PADDING, MASK = 0, 4
TOKEN_TYPES = 4
"""Number of token types, which mark segments and exact matches (the cue of MarkedBERT, SIGIR 2020) [ours]. A small
encoder trained on little text does not learn by itself that two tokens are equal."""
_COMPARED_PAIRS = 4096
"""Pairs whose tokens are compared in one step."""
_CACHED_TEXTS = 200_000
"""Distinct texts whose tokens a tokeniser keeps, at most; about 30 MB."""


@dataclass(frozen=True)
class PairTokens:
    """Jagged token ids of n pairs.

    Attributes:
        values: int32 [sum of lengths], the token ids of all pairs.
        offsets: int64 [n + 1], where each pair starts in `values`.
        query_tokens: int16 [n], tokens of the first segment, with `[CLS]` and its `[SEP]`; the rest is the title.
        match: float32 [n, M], the match features of the pairs (`match_features`); None: not computed.
    """

    values: np.ndarray
    offsets: np.ndarray
    query_tokens: np.ndarray
    match: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.query_tokens)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair: int64 [n]."""
        return np.diff(self.offsets)

    @cached_property
    def token_types(self) -> np.ndarray:
        """Type of each token, int8 [sum of lengths], computed once.

        0: query, 1: title, 2: query token that the title holds too, 3: title token that the query holds too. Special
        tokens are never marked.
        """
        types = np.empty(len(self.values), np.int8)
        order = np.argsort(self.lengths, kind="stable")
        for start in range(0, len(order), _COMPARED_PAIRS):
            rows = order[start : start + _COMPARED_PAIRS]
            positions, real = self._positions(rows)
            ids = np.full(real.shape, PADDING, np.int32)
            ids[real] = self.values[positions]
            in_title = np.arange(real.shape[1]) >= self.query_tokens[rows][:, None]
            types[positions] = (in_title + 2 * _matched(ids, in_title))[real]
        return types

    def batches(self, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Yield batches of indices of `rows`, at most `batch_size` each, the shortest pairs first.

        A batch that is a quarter full ends where the length changes. So most batches hold pairs of one length and need
        no padding, and no batch is so small that the call itself dominates.
        """
        order = np.argsort(self.lengths[rows], kind="stable")
        longer = np.flatnonzero(np.diff(self.lengths[rows[order]])) + 1
        start = 0
        while start < len(order):
            change = np.searchsorted(longer, start + batch_size // 4, side="right")
            end = min([start + batch_size, *longer[change : change + 1]])
            yield order[start:end]
            start = end

    def padded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Pad some pairs: input_ids, token_type_ids and attention_mask, int64 [len(rows), longest of them].

        Also `match`, float32 [len(rows), M], where it is computed.
        """
        positions, real = self._positions(rows)
        input_ids = np.full(real.shape, PADDING, np.int64)
        input_ids[real] = self.values[positions]
        token_types = np.zeros(real.shape, np.int64)
        token_types[real] = self.token_types[positions]
        arrays = {"input_ids": input_ids, "token_type_ids": token_types, "attention_mask": real.astype(np.int64)}
        return arrays if self.match is None else {**arrays, "match": self.match[rows]}

    def with_match(self, match: np.ndarray) -> "PairTokens":
        """The same pairs with their match features [n, M]."""
        return replace(self, match=match.astype(np.float32, copy=False))

    @classmethod
    def concatenate(cls, parts: "Sequence[PairTokens]") -> "PairTokens":
        """Put the pairs of several parts, at least one, behind each other; all have match features, or none."""
        matches = [part.match for part in parts if part.match is not None]
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]),
            np.concatenate([part.query_tokens for part in parts]),
            np.concatenate(matches) if matches else None,
        )

    def _positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of some pairs' tokens in `values`, and the mask of real tokens when padded [len(rows), longest]."""
        lengths = self.lengths[rows]
        column = np.arange(int(lengths.max(initial=0)))
        real = column < lengths[:, None]
        return (self.offsets[:-1][rows][:, None] + column)[real], real


def _matched(input_ids: np.ndarray, in_title: np.ndarray) -> np.ndarray:
    """Mask of the tokens [P, L] that the other segment holds too, without special tokens and padding."""
    equal = input_ids[:, :, None] == input_ids[:, None, :]
    across = in_title[:, :, None] != in_title[:, None, :]
    return (equal & across).any(axis=2) & (input_ids >= len(SPECIAL))


class PairTokeniser:
    """Turns queries and titles into `PairTokens`, cut to `max_length` tokens.

    A query keeps at most half of the tokens; the title gets the rest. The tokens of texts are cached, because a log is
    processed in many blocks, and most titles of a block are also in others.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._cache: dict[str, bytes] = {}
        self._start, self._separator = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    @classmethod
    def load(cls, directory: Path, max_length: int) -> "PairTokeniser":
        """Load the `tokenizer.json` of an encoder artifact."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(directory / TOKENIZER_FILE)), max_length)

    def encode(self, queries: Sequence[str], titles: Sequence[str]) -> PairTokens:
        """Tokenise n pairs, given as two sequences of equal length."""
        if len(queries) != len(titles):
            raise ValueError(f"{len(queries)} queries for {len(titles)} titles; give one query and one title per pair.")
        first, first_offsets, query_of = self._distinct(queries)
        second, second_offsets, title_of = self._distinct(titles)
        query_length = np.minimum(np.diff(first_offsets)[query_of], (self._max_length - 3) // 2)
        title_length = np.minimum(np.diff(second_offsets)[title_of], self._max_length - 3 - query_length)
        offsets = np.concatenate([[0], np.cumsum(query_length + title_length + 3)]).astype(np.int64)
        values = np.empty(offsets[-1], np.int32)
        start = offsets[:-1]
        values[start] = self._start
        values[start + query_length + 1] = self._separator
        values[offsets[1:] - 1] = self._separator
        copy_segments(first, first_offsets[query_of], query_length, values, start + 1)
        copy_segments(second, second_offsets[title_of], title_length, values, start + query_length + 2)
        return PairTokens(values, offsets, (query_length + 2).astype(np.int16))

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokenise each text: int32 ids, uncut and without special tokens."""
        return [np.frombuffer(ids, np.int32) for ids in self._ids(list(texts))]

    def join(self, query: np.ndarray, titles: Sequence[np.ndarray]) -> PairTokens:
        """Join the `ids` of one query and some titles to pairs. Equals `encode`, and is faster for few pairs."""
        query = query[: (self._max_length - 3) // 2]
        head = np.concatenate([[self._start], query, [self._separator]]).astype(np.int32)
        title_limit = self._max_length - 1 - len(head)
        tail = np.array([self._separator], np.int32)
        lengths = [len(head) + min(len(title), title_limit) + 1 for title in titles]
        return PairTokens(
            values=np.concatenate([part for title in titles for part in (head, title[:title_limit], tail)]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            query_tokens=np.full(len(titles), len(head), np.int16),
        )

    def _distinct(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and offsets of the distinct texts, and the index of each row's distinct text."""
        index_of: dict[str, int] = {}
        row_to_distinct = np.fromiter(
            (index_of.setdefault(text, len(index_of)) for text in texts), np.int64, len(texts)
        )
        ids = self._ids(list(index_of))
        offsets = np.concatenate([[0], np.cumsum([len(row) // 4 for row in ids])]).astype(np.int64)
        values = np.frombuffer(b"".join(ids), np.int32)
        return values, offsets, row_to_distinct

    def _ids(self, texts: list[str]) -> list[bytes]:
        """Token ids of each text, as the bytes of an int32 array.

        Threads may share the cache: a full one is replaced and never emptied.
        """
        cache = self._cache
        new_texts = [text for text in texts if text not in cache]
        for text, encoding in zip(new_texts, self._tokenizer.encode_batch_fast(new_texts, add_special_tokens=False)):
            cache[text] = np.array(encoding.ids, np.int32).tobytes()
        if len(cache) > _CACHED_TEXTS:
            self._cache = {}
        return [cache[text] for text in texts]


def copy_segments(
    source: np.ndarray, begin: np.ndarray, length: np.ndarray, target: np.ndarray, to: np.ndarray
) -> None:
    """Copy segments: target[to[i] : to[i] + length[i]] = source[begin[i] : begin[i] + length[i]] for all i at once."""
    step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    target[np.repeat(to, length) + step] = source[np.repeat(begin, length) + step]


def train_wordpiece(texts: Sequence[str], vocabulary: int) -> Any:
    """Train a WordPiece tokenizer (NFKC, lower case) with at most `vocabulary` tokens; the padding id is 0.

    The same texts always give the same tokenizer. The trainer by itself would number letters inside words in the order
    of a hash map, which differs in each run and decides ties. So these letters are passed in order, as special tokens.
    """
    from tokenizers import Tokenizer, models, trainers

    inner_letters = sorted({f"{CONTINUED}{letter}" for word in _words(texts) for letter in word[1:]})
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = _normaliser(), _splitter()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[*SPECIAL, *inner_letters], show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _normaliser(), _splitter()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _words(texts: Sequence[str]) -> set[str]:
    """The distinct words of some texts, split as the tokenizer splits them."""
    normaliser, splitter = _normaliser(), _splitter()
    pieces = {piece for text in texts for piece in text.split()}
    return {word for piece in pieces for word, _ in splitter.pre_tokenize_str(normaliser.normalize_str(piece))}


def _normaliser() -> Any:
    """NFKC and lower case. It is not `core.text.normalise_query`: vocabularies of saved encoders depend on this form,
    and it keeps white space, which the splitter reads."""
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def _splitter() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.BertPreTokenizer()
