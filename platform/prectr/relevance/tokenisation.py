"""Token pairs `[CLS] query [SEP] title [SEP]`: each distinct text is tokenised once, pairs are assembled with numpy.

Offline scoring, training and the online scorer all go through `PairTokeniser`, so one pair has one set of ids.
Needs the `tokenizers` library only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

TOKENIZER_FILE = "tokenizer.json"
CONTINUED = "##"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PADDING, MASK = 0, 4
TOKEN_TYPES = 4
"""Segments and exact matches are marked in the token types (the cue of MarkedBERT, SIGIR 2020) [ours]: a small encoder
trained from little text does not find by itself that two tokens are the same one."""
_BLOCK = 4096
"""Pairs whose tokens are compared at once."""
_REMEMBERED = 200_000
"""Distinct texts whose tokens a tokeniser keeps, at most: some 30 MB."""


@dataclass(frozen=True)
class PairTokens:
    """Jagged token ids of n pairs.

    values int32 [sum of lengths], offsets int64 [n + 1], query_tokens int16 [n]: tokens of the first segment,
    `[CLS]` and its `[SEP]` included; the rest is of token type 1.
    """

    values: np.ndarray
    offsets: np.ndarray
    query_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.query_tokens)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [n]."""
        return np.diff(self.offsets)

    @cached_property
    def token_types(self) -> np.ndarray:
        """Type of each token, int8 [sum of lengths], worked out once: 0 query, 1 title, 2 a query token that the title
        holds too, 3 a title token that the query holds; special tokens are never marked."""
        types = np.empty(len(self.values), np.int8)
        order = np.argsort(self.lengths, kind="stable")
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            places, real = self._places(rows)
            ids = np.full(real.shape, PADDING, np.int32)
            ids[real] = self.values[places]
            second = np.arange(real.shape[1]) >= self.query_tokens[rows][:, None]
            types[places] = (second + 2 * _matched(ids, second))[real]
        return types

    def batches(self, rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
        """Places in `rows`, at most so many at a time, the shortest pairs first.

        Once a batch is a quarter full it ends where the length changes, so that most batches hold pairs of one length
        and nothing is spent on padding; none is so small that the call itself is what costs.
        """
        order = np.argsort(self.lengths[rows], kind="stable")
        longer = np.flatnonzero(np.diff(self.lengths[rows[order]])) + 1
        start = 0
        while start < len(order):
            later = np.searchsorted(longer, start + most // 4, side="right")
            end = min([start + most, *longer[later : later + 1]])
            yield order[start:end]
            start = end

    def padded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """input_ids, token_type_ids, attention_mask of some pairs: int64 [len(rows), longest of them]."""
        places, real = self._places(rows)
        input_ids = np.full(real.shape, PADDING, np.int64)
        input_ids[real] = self.values[places]
        token_types = np.zeros(real.shape, np.int64)
        token_types[real] = self.token_types[places]
        return {"input_ids": input_ids, "token_type_ids": token_types, "attention_mask": real.astype(np.int64)}

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of some pairs' tokens in `values`, and where they stand when padded: bool [len(rows), longest]."""
        lengths = self.lengths[rows]
        place = np.arange(int(lengths.max(initial=0)))
        real = place < lengths[:, None]
        return (self.offsets[:-1][rows][:, None] + place)[real], real


def _matched(input_ids: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which tokens [P, L] stand in the other segment too; special tokens and padding never do."""
    equal = input_ids[:, :, None] == input_ids[:, None, :]
    across = second[:, :, None] != second[:, None, :]
    return (equal & across).any(axis=2) & (input_ids >= len(SPECIAL))


class PairTokeniser:
    """Turns queries and titles into `PairTokens`, cut to `max_length`.

    A query keeps at most half of the room; the title gets what is left. Tokens of texts are remembered: a log is worked
    on in many blocks, and most of a block's titles stand in others too.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._known: dict[str, bytes] = {}
        self._start, self._separator = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    @classmethod
    def load(cls, directory: Path, max_length: int) -> "PairTokeniser":
        """From the `tokenizer.json` of an encoder artifact."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(directory / TOKENIZER_FILE)), max_length)

    def encode(self, queries: Sequence[str], titles: Sequence[str]) -> PairTokens:
        """Tokenise n pairs given as two sequences of equal length."""
        if len(queries) != len(titles):
            raise ValueError(f"{len(queries)} queries for {len(titles)} titles; give one of each a pair.")
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
        """Token ids of each text, int32, whole and without special tokens."""
        return [np.frombuffer(ids, np.int32) for ids in self._ids(list(texts))]

    def join(self, query: np.ndarray, titles: Sequence[np.ndarray]) -> PairTokens:
        """Pairs of one query with some titles, of their `ids`: what `encode` gives, for few pairs and known texts."""
        query = query[: (self._max_length - 3) // 2]
        head = np.concatenate([[self._start], query, [self._separator]]).astype(np.int32)
        room = self._max_length - 1 - len(head)
        tail = np.array([self._separator], np.int32)
        lengths = [len(head) + min(len(title), room) + 1 for title in titles]
        return PairTokens(
            values=np.concatenate([part for title in titles for part in (head, title[:room], tail)]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            query_tokens=np.full(len(titles), len(head), np.int16),
        )

    def _distinct(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and offsets of the distinct texts, and the distinct text of each row."""
        places: dict[str, int] = {}
        row_to_distinct = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
        ids = self._ids(list(places))
        offsets = np.concatenate([[0], np.cumsum([len(row) // 4 for row in ids])]).astype(np.int64)
        values = np.frombuffer(b"".join(ids), np.int32)
        return values, offsets, row_to_distinct

    def _ids(self, texts: list[str]) -> list[bytes]:
        """Token ids of each text, the bytes of an int32 array. Threads may share the memory: it is replaced, never
        emptied."""
        known = self._known
        new = [text for text in texts if text not in known]
        for text, encoding in zip(new, self._tokenizer.encode_batch_fast(new, add_special_tokens=False)):
            known[text] = np.array(encoding.ids, np.int32).tobytes()
        if len(known) > _REMEMBERED:
            self._known = {}
        return [known[text] for text in texts]


def copy_segments(
    source: np.ndarray, begin: np.ndarray, length: np.ndarray, target: np.ndarray, to: np.ndarray
) -> None:
    """target[to[i] : to[i] + length[i]] = source[begin[i] : begin[i] + length[i]] for all i at once."""
    step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    target[np.repeat(to, length) + step] = source[np.repeat(begin, length) + step]


def train_wordpiece(texts: Sequence[str], vocabulary: int) -> Any:
    """A WordPiece tokenizer (NFKC, lower case) of at most `vocabulary` tokens; padding id 0.

    The same texts give the same tokenizer: the trainer numbers letters inside words in the order of a hash map, which
    differs each time and decides ties, so they are given to it in order, as if they were special.
    """
    from tokenizers import Tokenizer, models, trainers

    inner = sorted({f"{CONTINUED}{letter}" for word in _words(texts) for letter in word[1:]})
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = _normaliser(), _splitter()
    trained.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL, *inner], show_progress=False)
    )
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _normaliser(), _splitter()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _words(texts: Sequence[str]) -> set[str]:
    """The distinct words, as the tokenizer splits them."""
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
