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
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

WORD = r"[\p{L}\p{N}]+"
"""A word, as a regular expression of polars: a run of letters and digits."""


NORMAL_FORM = 2
"""Version of the normal form of queries. Stored state names it, and state of another form is refused, because its
queries would not be found. Form 1 kept format characters."""
BLANK = r"^[\s\x1c-\x1f\p{Cf}]*$"
"""A text whose normal form is empty, as a regular expression of polars."""
_EMOJI = "[\u2190-\u2bff\U0001f000-\U0001faff]"
_EMOJI_JOINERS = re.compile(f"(?<={_EMOJI}|\ufe0f)\u200d(?={_EMOJI})|(?<=\U0001f3f4)[\U000e0020-\U000e007e]+\U000e007f")
"""Format characters that belong to an emoji: joiners between two emoji, and the tags of a flag."""


def normalise_query(query: str) -> str:
    """Normal form of a query: what users see alike is equal.

    Format characters, which are invisible, are removed, except inside emoji. Then come NFKC, Unicode case folding, NFKC
    again, and one blank for each run of white space. The form is its own normal form.

    >>> normalise_query("  NOKIA　3310 ")
    'nokia 3310'
    >>> normalise_query("Straße"), normalise_query("soft\\u00adware\\u200b")
    ('strasse', 'software')
    """
    if query.isascii():
        return " ".join(query.lower().split())
    folded = _folded(query)
    while folded != query:
        query, folded = folded, _folded(folded)
    return folded


def _folded(query: str) -> str:
    """One round of folding; a second one can find more only in rare texts, as emoji that NFKC turns into letters."""
    text = unicodedata.normalize("NFKC", _without_format(query)).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _without_format(text: str) -> str:
    """Remove the format characters of a text that belong to no emoji."""
    if text.isprintable():  # quick, and format characters are not printable
        return text
    kept = {place for match in _EMOJI_JOINERS.finditer(text) for place in range(*match.span())}
    return "".join(
        character for place, character in enumerate(text) if place in kept or unicodedata.category(character) != "Cf"
    )


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: its normal form is empty.

    >>> is_blank(" \\u200b"), is_blank("-")
    (True, False)
    """
    return not text.strip() if text.isascii() else not normalise_query(text)


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
