"""The one normal form of query text, and hashes that are the same on every machine.

Queries are joined on their normalised form everywhere; no other module may fold text by itself.
"""

import hashlib
import unicodedata
from collections.abc import Iterable


def normalise_query(query: str) -> str:
    """NFKC, case-folded, white space squeezed: `"  NOKIA　3310 "` becomes `"nokia 3310"`."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def normalise_queries(queries: Iterable[str]) -> dict[str, str]:
    """Map each distinct query to its normal form. Columns are mapped through this, so that each text is folded once."""
    return {query: normalise_query(query) for query in set(queries)}


def stable_hash(*parts: str) -> int:
    """An unsigned 64-bit hash of strings that does not change between processes, machines or versions."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hash_fraction(*parts: str) -> float:
    """A number in [0, 1), uniform over inputs and always the same for the same input: for splits and samples."""
    return stable_hash(*parts) / 2**64
