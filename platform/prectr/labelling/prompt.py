"""Prompt templates: versioned texts that ask for the grade of one pair and end where one label token must follow.

A template is a YAML file `name.language.yaml`. Its `prefix` (the task and the definition of each grade) is the same for
all pairs and comes first, so that an engine's prefix cache computes it once. Its `pair` shows one query and item. This
module loads, renders and tokenises templates; it runs no model.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from prectr.core.errors import UsageError, quoted, shorten
from prectr.core.text import normalise_queries
from prectr.labelling.word_match import UNSPACED, query_words_by_match

ITEM_FIELDS = ("category", "brand")
"""Fields of an item that a template may show besides its title."""
RENDERING = 2
"""Version of the rendering code, part of every template's version. Raise it when a pair gets another text."""

_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
_GRADE_PLACEHOLDERS = tuple(f"grade_{grade}" for grade in range(4))
_PAIR_PLACEHOLDERS = ("query", "title", *ITEM_FIELDS, "shared", "missing")
_REQUIRED_KEYS = ("labels", "grades", "prefix", "pair")
_FOLDER = Path(__file__).parent / "prompts"
_SHARE_PREFIX_ABOVE = 64
"""Prompts above which it pays to check whether the prefix can be tokenised once for all."""
_LANGUAGE_SAMPLE = 10_000
"""Titles that decide the language of a catalogue."""


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt template in one language, with the definitions of the grades already filled into the prefix."""

    name: str
    language: str
    prefix: str
    pair: str
    labels: tuple[str, ...] = ("0", "1", "2", "3")
    """The answer for each grade, 0 first."""
    grades: tuple[str, ...] = ("", "", "", "")
    """The definition of each grade, 0 first."""
    empty: str = "none"
    """Text for {shared} or {missing} if there is no such word."""

    @property
    def text(self) -> str:
        """The whole template with the placeholders of `pair` unfilled."""
        return self.prefix + self.pair

    @property
    def version(self) -> str:
        """Name, language and a hash of everything that changes a prompt, e.g. `relevance_v1.en-5f2c9a01`."""
        parts = (str(RENDERING), self.prefix, self.pair, self.empty, *self.labels)
        return f"{self.name}.{self.language}-{hashlib.blake2b(chr(31).join(parts).encode(), digest_size=4).hexdigest()}"

    @property
    def shown(self) -> tuple[str, ...]:
        """The item's fields that the template shows besides the title."""
        return tuple(field for field in ITEM_FIELDS if f"{{{field}}}" in self.pair)

    def render(self, pairs: pl.DataFrame) -> list[str]:
        """Write one prompt per pair.

        Texts are brought to the normal form first. Capitals say nothing about relevance, and a small model would have
        to learn each word twice. Pairs that differ in nothing else become one question.

        Args:
            pairs: string columns query, title and those in `shown`; null counts as "".
        """
        fields = pairs.select(_normal(pairs[name]) for name in ("query", "title", *self.shown))
        if "{shared}" in self.pair or "{missing}" in self.pair:
            shared, missing = query_words_by_match(fields["query"].to_list(), fields["title"].to_list(), self.empty)
            fields = fields.with_columns(
                pl.Series("shared", shared, pl.String), pl.Series("missing", missing, pl.String)
            )
        pieces = [
            pl.col(piece) if index % 2 else pl.lit(piece) for index, piece in enumerate(_PLACEHOLDER.split(self.pair))
        ]
        # An empty last field must not leave a blank at the end: some chat templates trim it, others do not.
        pair = pl.concat_str(pieces).str.strip_chars_end()
        return fields.select(prompt=pl.concat_str(pl.lit(self.prefix), pair))["prompt"].to_list()


def _normal(column: pl.Series) -> pl.Series:
    texts = column.fill_null("").to_list()
    forms = normalise_queries(texts)
    return pl.Series(column.name, [forms[text] for text in texts], pl.String)


def load_prompt(name: str, language: str = "en") -> PromptTemplate:
    """Load a template.

    Args:
        name: name of a file `name.language.yaml` in `prompts/`, or the path of a `.yaml` file.
        language: language of the template. The language in a path's name, as in `mine.de.yaml`, outranks it.

    Raises:
        UsageError: there is no such template, or it is malformed; the message names the file and the key.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        template_name, _, file_language = file.stem.partition(".")
        language = file_language or language
    else:
        file, template_name = _FOLDER / f"{name}.{language}.yaml", name
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        available = ", ".join(sorted(path.name.removesuffix(".yaml") for path in _FOLDER.glob("*.yaml")))
        raise UsageError(
            f"prompt {quoted(name, 300)} in language {quoted(language)}: there is no file {file}; available: "
            f"{available}. Choose one of these, or give the path of your own .yaml file."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid YAML: {shorten(error)}") from None
    return _template(file, template_name, language, content)


def _template(file: Path, name: str, language: str, content: Any) -> PromptTemplate:
    if not isinstance(content, dict):
        raise UsageError(
            f"{file}: a template is a mapping of {', '.join(_REQUIRED_KEYS)}, got {type(content).__name__}."
        )
    if unknown := sorted(str(key) for key in content if key not in (*_REQUIRED_KEYS, "empty")):
        raise UsageError(
            f"{file}: unknown key {quoted(unknown[0])}; a template has the keys {', '.join(_REQUIRED_KEYS)}, and "
            "optionally empty."
        )
    if absent := [key for key in _REQUIRED_KEYS if key not in content]:
        raise UsageError(f"{file}: the template lacks the key '{absent[0]}'.")
    labels, grades = (_four_texts(file, key, content[key]) for key in ("labels", "grades"))
    if any(label.split() != [label] for label in labels) or len(set(labels)) < len(labels):
        raise UsageError(
            f"{file}: labels: {quoted(list(labels))} must be four different answers without blanks in them."
        )
    for key in ("prefix", "pair", "empty"):
        if not isinstance(content.get(key, "-"), str) or not content.get(key, "-").strip():
            raise UsageError(f"{file}: {key}: must be text, got {quoted(content[key])}.")
    prefix, pair = content["prefix"].lstrip(), content["pair"].rstrip()
    _check_placeholders(file, "prefix", prefix, allowed=_GRADE_PLACEHOLDERS, required=())
    _check_placeholders(file, "pair", pair, allowed=_PAIR_PLACEHOLDERS, required=("query", "title"))
    filled_prefix = _PLACEHOLDER.sub(lambda match: grades[_GRADE_PLACEHOLDERS.index(match[1])], prefix)
    return PromptTemplate(name, language, filled_prefix, pair, labels, grades, content.get("empty", "none"))


def _four_texts(file: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) != len(_GRADE_PLACEHOLDERS):
        raise UsageError(
            f"{file}: {key}: must be a list of four texts, for the grades 0, 1, 2, 3; got {quoted(value)}."
        )
    if wrong := [entry for entry in value if not isinstance(entry, str) or not entry.strip()]:
        raise UsageError(f"{file}: {key}: {quoted(wrong[0])} is not text; write it in quotes.")
    return tuple(value)


def _check_placeholders(file: Path, key: str, text: str, allowed: Sequence[str], required: Sequence[str]) -> None:
    placeholders = _PLACEHOLDER.findall(text)
    for name in placeholders:
        if name not in allowed:
            reason = (
                " belongs into pair, because all prompts share the prefix"
                if name in _PAIR_PLACEHOLDERS
                else " is unknown"
            )
            allowed_text = ", ".join(f"{{{name}}}" for name in allowed)
            raise UsageError(
                f"{file}: {key}: the placeholder {{{shorten(name, 80)}}}{reason}; {key} may hold {allowed_text}."
            )
    for name in required:
        if name not in placeholders:
            raise UsageError(f"{file}: {key}: lacks the placeholder {{{name}}}.")


def catalogue_language(titles: pl.Series) -> str:
    """Recognise the language of a catalogue by the script of its first titles: "zh", "ja" or else "en".

    It is Chinese or Japanese if most titles hold characters of these scripts, and Japanese if a third of those titles
    hold kana: Chinese sellers put a stray の into a title, and Japanese sellers hardly write a title without kana.
    """
    sample = titles.drop_nulls().head(_LANGUAGE_SAMPLE)
    unspaced = sample.str.contains(f"[{UNSPACED}]")
    if not len(unspaced) or unspaced.mean() <= 0.5:  # type: ignore[operator]
        return "en"
    kana = sample.filter(unspaced).str.contains(r"[\p{Hiragana}\p{Katakana}]")
    return "ja" if kana.mean() >= 1 / 3 else "zh"  # type: ignore[operator]


def label_token_ids(tokenizer: Any, template: PromptTemplate) -> list[int]:
    """Look up the token of each label, in grade order.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: the template with the labels.

    Raises:
        UsageError: a label is not a single token of this tokenizer, or two labels share one.
    """
    tokens: list[int] = []
    for label in template.labels:
        pieces = tokenizer.encode(label, add_special_tokens=False)
        if len(pieces) != 1 or pieces[0] in tokens or pieces[0] == getattr(tokenizer, "unk_token_id", None):
            raise UsageError(
                f"label '{label}' of prompt {template.name}.{template.language} is not one token of the teacher's "
                f"tokenizer, or shares its token with another label (token ids {pieces}); use a teacher whose "
                "tokenizer has one token for each label, or a template with other labels."
            )
        tokens.append(pieces[0])
    return tokens


def tokenise_prompts(tokenizer: Any, template: PromptTemplate, pairs: pl.DataFrame, max_length: int) -> list[list[int]]:
    """Tokenise the prompt of each pair, in the same way for training and for every engine.

    With a chat template, the prompt is one user message followed by the start of the answer, and thinking is off. A
    prompt longer than `max_length` loses the end of its title and nothing else. A prompt that is too long even without
    a title is returned whole; the engine then reports an error for its row.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: the prompt template.
        pairs: n rows with the columns that `PromptTemplate.render` needs.
        max_length: tokens of a prompt, at most.

    Returns:
        n lists of token ids.
    """
    prompts = _tokenise(tokenizer, template, pairs)
    long_rows = [row for row, prompt in enumerate(prompts) if len(prompt) > max_length]
    if not long_rows:
        return prompts
    long_pairs = pairs[long_rows].with_columns(_normal(pairs["title"][long_rows]))
    title_tokens = _encode(tokenizer, long_pairs["title"].to_list())
    kept, sizes = [len(title) for title in title_tokens], [len(prompts[row]) for row in long_rows]
    # A shorter title moves words from {shared} to {missing}, so one cut is usually enough, but not always.
    while too_long := [index for index, size in enumerate(sizes) if size > max_length and kept[index]]:
        for index in too_long:
            kept[index] = max(0, kept[index] - (sizes[index] - max_length))
        # The last token kept may hold half a character.
        titles = [tokenizer.decode(title_tokens[index][: kept[index]]).rstrip("\ufffd") for index in too_long]
        cut_pairs = long_pairs[too_long].with_columns(pl.Series("title", titles, pl.String))
        for index, prompt in zip(too_long, _tokenise(tokenizer, template, cut_pairs), strict=True):
            sizes[index] = len(prompt)
            if len(prompt) <= max_length:
                prompts[long_rows[index]] = prompt
    return prompts


def _tokenise(tokenizer: Any, template: PromptTemplate, pairs: pl.DataFrame) -> list[list[int]]:
    """Tokenise whole prompts of any length. The shared prefix is tokenised once if that changes no token."""
    head, tail = _chat_frame(tokenizer)
    prefix = head + template.prefix
    bodies = [prompt[len(template.prefix) :] + tail for prompt in template.render(pairs)]
    # No tokenizer of a language model joins the end of a line to a letter at the start of the next line. A tokenizer
    # that treats the start of a text specially (e.g. puts a blank before it) does so in every prompt, so a sample
    # shows it.
    if len(bodies) > _SHARE_PREFIX_ABOVE and prefix.endswith("\n") and re.match(r"\w", template.pair):
        prefix_tokens = _encode(tokenizer, [prefix])[0]
        sample = bodies[:: len(bodies) // 8]
        whole_tokens = _encode(tokenizer, [prefix + body for body in sample])
        if whole_tokens == [prefix_tokens + body for body in _encode(tokenizer, sample)]:
            return [prefix_tokens + body for body in _encode(tokenizer, bodies)]
    return _encode(tokenizer, [prefix + body for body in bodies])


def _chat_frame(tokenizer: Any) -> tuple[str, str]:
    """Return the texts that the chat template puts before and after one user message; ("", "") without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    message = "prectr-prompt"
    framed = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    head, _, tail = framed.partition(message)
    if head + message + tail != framed or message in tail or message not in framed:
        raise UsageError(
            "the teacher's chat template changes or repeats the user's message; use a teacher whose chat template "
            "shows it once, unchanged."
        )
    return head, tail


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Tokenise texts without adding special tokens. The fast path computes no masks."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def show_prompt(template: PromptTemplate, tokenizer: Any | None, pair: pl.DataFrame) -> str:
    """Describe one prompt, for `prectr teacher prompt`.

    Args:
        template: the prompt template.
        tokenizer: the teacher's tokenizer; None for a teacher behind a URL, whose server tokenises by itself.
        pair: one row with the columns that `PromptTemplate.render` needs.

    Returns:
        Lines with the version, language, labels with tokens and definitions, numbers of tokens, and the whole prompt.

    Raises:
        UsageError: a label is not one token.
    """
    prompt = template.render(pair)[0]
    lines = [f"prompt    {template.version}", f"language  {template.language}"]
    tokens = [""] * len(template.labels)
    if tokenizer is None:
        lines.append("tokens    counted by the teacher's server, which also applies its chat template")
    else:
        tokens = [f" (token {token})" for token in label_token_ids(tokenizer, template)]
        head, tail = _chat_frame(tokenizer)
        counts = [len(ids) for ids in _encode(tokenizer, [head + template.prefix, head + prompt + tail])]
        lines.append(f"tokens    {counts[0]} in the prefix that all prompts share, {counts[1]} in this prompt")
        prompt = head + prompt + tail
    answers = zip(template.labels, tokens, template.grades, strict=True)
    lines += [f"label     {label}{token}: {definition}" for label, token, definition in answers]
    return "\n".join([*lines, "", prompt])
