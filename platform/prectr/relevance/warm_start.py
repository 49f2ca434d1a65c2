"""Warm start of the teacher: pairs generated from the catalogue, to learn matching words first [ours].

A few judged queries cannot teach a new model that every word of the catalogue matches itself. The query of a generated
pair is one to three words of a title, or an item's category. Its item is that item, another one of the same category,
or any item. Its grade is the share of the query's words that the item's title or category holds: 3 all, 2 at least
half, 1 some, 0 none. Fine-tuning on judgments then learns the value of a shared word. This module reads no
log, no judgment and no held-back query.
"""

import numpy as np
import polars as pl

from prectr.core.text import lower_words


def made_pairs(items: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Generate `count` pairs from a catalogue.

    Args:
        items: columns title, category.
        count: number of pairs.
        seed: seed of the random draws.

    Returns:
        Columns query (lower case), title, grade int8 0..3.
    """
    words = items.select(
        title="title",
        title_words=lower_words(pl.col("title")),
        leaf=lower_words(pl.col("category").fill_null("").str.split(">").list.last()),
        category=pl.col("category").fill_null(""),
    ).filter(pl.col("title_words").list.len() > 0)
    if words.is_empty() or count <= 0:
        return pl.DataFrame(schema={"query": pl.String, "title": pl.String, "grade": pl.Int8})
    words = words.sort("category", maintain_order=True)
    generator = np.random.default_rng(seed)
    source = generator.integers(0, len(words), count)
    # Rows are sorted by category, so neighbours are mostly of the same category.
    near = np.clip(source + generator.integers(-40, 41, count), 0, len(words) - 1)
    far = generator.integers(0, len(words), count)
    kind = generator.random(count)
    target = np.select([kind < 0.35, kind < 0.8], [source, near], far)

    query_length, from_category = generator.integers(1, 4, count), generator.random(count) < 0.15
    draws = words[source].select(
        query_words=pl.when(pl.Series(from_category)).then(pl.col("leaf")).otherwise(pl.col("title_words"))
    )
    shuffled = (
        draws.with_row_index("row")
        .explode("query_words", empty_as_null=True, keep_nulls=True)
        .with_columns(pl.col("query_words").fill_null(""))
    )
    order = generator.random(len(shuffled))
    limit = pl.Series(np.where(from_category, 4, query_length))
    queries = (
        shuffled.with_columns(order=pl.Series(order), limit=limit.gather(shuffled["row"]))
        .sort("row", "order")
        .filter(pl.int_range(pl.len()).over("row") < pl.col("limit"))
        .group_by("row", maintain_order=True)
        .agg("query_words")
    )
    item = words[target].select("title", held=pl.col("title_words").list.concat("leaf"))
    share = (
        pl.col("query_words").list.set_intersection("held").list.len() / pl.col("query_words").list.unique().list.len()
    )
    return pl.concat([queries.select("query_words"), item], how="horizontal").select(
        query=pl.col("query_words").list.join(" "),
        title="title",
        grade=pl.when(share >= 1).then(3).when(share >= 0.5).then(2).when(share > 0).then(1).otherwise(0).cast(pl.Int8),
    )
