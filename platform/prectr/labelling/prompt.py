"""What the teacher is asked: a versioned template that ends where exactly one label token must follow.

A template is a text file with the grade definitions first (the prefix that all prompts share, so that an engine's
prefix cache holds it once) and `{query}` and `{title}` last; `{shared}` and `{missing}` may state which query words the
title holds. This module renders and tokenises; it runs no model.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prectr.errors import UsageError

LABELS = ("0", "1", "2", "3")
"""The answers, in the order of the grades."""

_PLACEHOLDER = re.compile(r"(\{(?:query|title|shared|missing)\})")


@dataclass(frozen=True)
class PromptTemplate:
    """A template's name, text and version (a hash of the text: an edited template is another version)."""

    name: str
    text: str

    @property
    def version(self) -> str:
        """Name and hash of the text, e.g. `relevance_v1-5f2c9a01`."""
        return f"{self.name}-{hashlib.blake2b(self.text.encode(), digest_size=4).hexdigest()}"

    def render(self, queries: Sequence[str], titles: Sequence[str]) -> list[str]:
        """One prompt a pair; a placeholder may appear several times. Titles come in lower case, as queries do: sellers'
        capitals say nothing of relevance, and halve what a small model sees of a word."""
        fields = {"{query}": [query.lower() for query in queries], "{title}": [title.lower() for title in titles]}
        if "{shared}" in self.text or "{missing}" in self.text:
            fields["{shared}"], fields["{missing}"] = query_words_by_match(queries, titles)
        pieces = _PLACEHOLDER.split(self.text)
        columns = [fields.get(piece) or [piece] * len(queries) for piece in pieces]
        return ["".join(row) for row in zip(*columns, strict=True)]


def query_words_by_match(queries: Sequence[str], titles: Sequence[str]) -> tuple[list[str], list[str]]:
    """The query's words that the title holds, and those that it does not, each joined by blanks or "none".

    Words are compared in lower case. A small model finds it hard to see that two words are the same one; stating the
    exact matches leaves it the part that words alone cannot tell (the cue of MarkedBERT, SIGIR 2020) [ours].
    """
    import polars as pl

    def words(name: str) -> pl.Expr:
        return pl.col(name).str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")

    pairs = pl.DataFrame(
        {"query": list(queries), "title": list(titles)}, schema={"query": pl.String, "title": pl.String}
    )
    sets = pairs.with_row_index("row").select("row", query=words("query"), title=words("title"))
    exploded = sets.select("row", word="query").explode("word", empty_as_null=True, keep_nulls=True)
    held = (
        sets.select("row", word="title")
        .explode("word", empty_as_null=True, keep_nulls=True)
        .unique()
        .with_columns(held=True)
    )
    matched = exploded.join(held, on=["row", "word"], how="left", maintain_order="left")
    joined = matched.group_by("row", maintain_order=True).agg(
        shared=pl.col("word").filter(pl.col("held").is_not_null()).drop_nulls().str.join(" "),
        missing=pl.col("word").filter(pl.col("held").is_null()).drop_nulls().str.join(" "),
    )
    filled = joined.with_columns(pl.col("shared", "missing").replace("", "none"))
    return filled["shared"].to_list(), filled["missing"].to_list()


def load_prompt(name: str) -> PromptTemplate:
    """Load a template by the name of a file in `prompts/`, or by path.

    Raises:
        UsageError: no such template, or it lacks a placeholder.
    """
    folder = Path(__file__).parent / "prompts"
    file = folder / f"{name}.txt" if not name.endswith(".txt") else Path(name)
    try:
        text = file.read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise UsageError(f"prompt '{name}': no such template; known: {known}, or give a path to a .txt file.") from None
    missing = [placeholder for placeholder in ("{query}", "{title}") if placeholder not in text]
    if missing:
        raise UsageError(f"{file}: the template lacks {' and '.join(missing)}.")
    return PromptTemplate(file.stem, text)


def label_token_ids(tokenizer: Any) -> list[int]:
    """The token of each label, in grade order.

    Args:
        tokenizer: a Hugging Face tokenizer.

    Raises:
        UsageError: a label is not a single token of this tokenizer, or two labels share one.
    """
    tokens: list[int] = []
    for label in LABELS:
        pieces = tokenizer.encode(label, add_special_tokens=False)
        if len(pieces) != 1 or pieces[0] in tokens or pieces[0] == getattr(tokenizer, "unk_token_id", None):
            raise UsageError(
                f"label '{label}' is not one token of its own in the teacher's tokenizer (it gives {pieces}); "
                "use a teacher whose tokenizer holds the digits as single tokens."
            )
        tokens.append(pieces[0])
    return tokens


def tokenise_prompts(
    tokenizer: Any, template: PromptTemplate, queries: Sequence[str], titles: Sequence[str], max_length: int
) -> list[list[int]]:
    """Token ids of each prompt, the same for training and for every engine.

    A tokenizer with a chat template gets the prompt as one user message with the answer opened; thinking is off. A
    prompt longer than `max_length` loses the end of its title, never of its question.
    """
    prompts = _tokenise(tokenizer, template.render(queries, titles))
    long = [row for row, prompt in enumerate(prompts) if len(prompt) > max_length]
    if long:
        cut_titles = [
            tokenizer.decode(pieces[: max(1, len(pieces) - (len(prompts[row]) - max_length) - 2)])
            for row, pieces in zip(long, _pieces(tokenizer, [titles[row] for row in long]), strict=True)
        ]
        shorter = _tokenise(tokenizer, template.render([queries[row] for row in long], cut_titles))
        for row, prompt in zip(long, shorter, strict=True):
            prompts[row] = prompt if len(prompt) <= max_length else prompt[-max_length:]
    return prompts


def _pieces(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def _tokenise(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    if not prompts:
        return []
    if getattr(tokenizer, "chat_template", None):
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for prompt in prompts],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
    return tokenizer(prompts, add_special_tokens=False)["input_ids"]
