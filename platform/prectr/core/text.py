"""Normal form of query text, words of a text, and hashes that are the same on every machine.

Queries are joined on their normal form everywhere, so no other module may fold queries by itself.

Texts are split into words by several rules, because stored features, selections, prompts and vocabularies depend on
them:

| use | rule | why not another |
|---|---|---|
| match features, warm start | `lower_words` | trained rankers and students depend on it |
| prompt cues (`labelling.word_match`) | `lower_words` with a pattern of scripts | prompts state words of all scripts |
| lexical bands (`labelling.bands`) | normal form, then blanks around words | words are found by their text |
| catalogue search (`serving.search`) | normal form, then `neighbour_pairs` | it matches all unspaced scripts, not two |
| student tokenizer (`relevance.tokenisation`) | NFKC, lower case | saved vocabularies depend on it |
| marketplace (`data.marketplace`) | white space; scikit-learn's `\\w+` | the simulated logs depend on it |
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

WORD = r"[\p{L}\p{N}]+"
"""A word, as a regular expression of polars: a run of letters and digits."""


def normalise_query(query: str) -> str:
    """Fold a query: NFKC, then Unicode case folding, then one blank for each run of white space.

    >>> normalise_query("  NOKIA　3310 ")
    'nokia 3310'
    >>> normalise_query("Straße")
    'strasse'
    """
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def normalise_queries(queries: Iterable[str]) -> dict[str, str]:
    """Map each distinct query to its normal form. Map columns through it, so that each text is folded once.

    >>> normalise_queries(["Nokia", "Nokia"])
    {'Nokia': 'nokia'}
    """
    return {query: normalise_query(query) for query in set(queries)}


def lower_words(text: "pl.Expr", pattern: str = WORD) -> "pl.Expr":
    """Words of a text column in lower case and in their order: a list column. Repeated words stay.

    Only letters are folded (no NFKC, no case folding): features and labels of stored tables depend on that.

    >>> import polars as pl
    >>> pl.select(lower_words(pl.lit("Nokia 3310, dual-SIM"))).item().to_list()
    ['nokia', '3310', 'dual', 'sim']
    """
    return text.str.to_lowercase().str.extract_all(pattern)


def neighbour_pairs(word: str) -> list[str]:
    """Every two neighbouring characters of a word: what stands for words in a script without blanks.

    >>> neighbour_pairs("手机壳")
    ['手机', '机壳']
    >>> neighbour_pairs("壳")
    ['壳']
    """
    return [left + right for left, right in pairwise(word)] if len(word) > 1 else [word]


def stable_hash(*parts: str) -> int:
    """Unsigned 64-bit hash of strings, equal in every process, on every machine and in every version."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hash_fraction(*parts: str) -> float:
    """Map strings to a number in [0, 1): uniform over inputs, equal for equal inputs. Splits and samples use it.

    >>> round(hash_fraction("nokia 3310"), 4)
    0.6361
    """
    return stable_hash(*parts) / 2**64
