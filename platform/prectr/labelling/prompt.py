"""What the teacher is asked: a versioned template that ends where exactly one label token must follow.

A template is a YAML file `name.language.yaml`. Its `prefix` (what to do, and the definition of each grade) is the same
for all pairs and comes first, so that an engine's prefix cache holds it once; its `pair` shows one query and item. This
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

from prectr.core.errors import UsageError
from prectr.core.text import normalise_queries
from prectr.labelling.word_match import UNSPACED, query_words_by_match

ITEM_FIELDS = ("category", "brand")
"""What a template may show of an item besides its title."""
RENDERING = 2
"""Part of every version: raise it when the code below turns the same pair into another text."""

_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
_OF_A_GRADE = tuple(f"grade_{grade}" for grade in range(4))
_OF_A_PAIR = ("query", "title", *ITEM_FIELDS, "shared", "missing")
_REQUIRED = ("labels", "grades", "prefix", "pair")
_FOLDER = Path(__file__).parent / "prompts"
_SHARE_ABOVE = 64
"""Prompts from which it pays to find out whether the prefix may be tokenised once."""


@dataclass(frozen=True)
class PromptTemplate:
    """A template in one language, its grades already written into the prefix."""

    name: str
    language: str
    prefix: str
    pair: str
    labels: tuple[str, ...] = ("0", "1", "2", "3")
    """The answers, by grade."""
    grades: tuple[str, ...] = ("", "", "", "")
    """What each grade means, by grade."""
    empty: str = "none"
    """Stands for {shared} or {missing} where there is no such word."""

    @property
    def text(self) -> str:
        """The whole template, its placeholders as they are written."""
        return self.prefix + self.pair

    @property
    def version(self) -> str:
        """Name, language and a hash of all that changes the question, e.g. `relevance_v1.en-5f2c9a01`."""
        parts = (str(RENDERING), self.prefix, self.pair, self.empty, *self.labels)
        return f"{self.name}.{self.language}-{hashlib.blake2b(chr(31).join(parts).encode(), digest_size=4).hexdigest()}"

    @property
    def shown(self) -> tuple[str, ...]:
        """The item's fields that a pair shows besides its title."""
        return tuple(field for field in ITEM_FIELDS if f"{{{field}}}" in self.pair)

    def render(self, pairs: pl.DataFrame) -> list[str]:
        """One prompt a pair.

        Texts are brought to the one normal form first: sellers' capitals say nothing of relevance and halve what a
        small model sees of a word; and pairs that differ in nothing else are one question.

        Args:
            pairs: string columns query, title and those in `shown`; null stands for "".
        """
        fields = pairs.select(_normal(pairs[name]) for name in ("query", "title", *self.shown))
        if "{shared}" in self.pair or "{missing}" in self.pair:
            shared, missing = query_words_by_match(fields["query"].to_list(), fields["title"].to_list(), self.empty)
            fields = fields.with_columns(
                pl.Series("shared", shared, pl.String), pl.Series("missing", missing, pl.String)
            )
        pieces = [
            pl.col(piece) if place % 2 else pl.lit(piece) for place, piece in enumerate(_PLACEHOLDER.split(self.pair))
        ]
        # An empty last field leaves no blank at the end, which some chat templates would trim and others not.
        pair = pl.concat_str(pieces).str.strip_chars_end()
        return fields.select(prompt=pl.concat_str(pl.lit(self.prefix), pair))["prompt"].to_list()


def _normal(column: pl.Series) -> pl.Series:
    texts = column.fill_null("").to_list()
    forms = normalise_queries(texts)
    return pl.Series(column.name, [forms[text] for text in texts], pl.String)


def load_prompt(name: str, language: str = "en") -> PromptTemplate:
    """Load a template.

    Args:
        name: of a file `name.language.yaml` in `prompts/`; or the path of a `.yaml` file.
        language: a path's own language, `mine.de.yaml`, outranks it.

    Raises:
        UsageError: no such template, or one that is not well formed; the message names the file and the key.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        stem, _, own_language = file.stem.partition(".")
        template_name, language = stem, own_language or language
    else:
        file, template_name = _FOLDER / f"{name}.{language}.yaml", name
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(path.name.removesuffix(".yaml") for path in _FOLDER.glob("*.yaml")))
        raise UsageError(
            f"prompt '{name}' in language '{language}': no file {file}; known: {known}. "
            "Choose one of these, or give the path of a .yaml file of your own."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid YAML: {error}") from None
    return _template(file, template_name, language, content)


def _template(file: Path, name: str, language: str, content: Any) -> PromptTemplate:
    if not isinstance(content, dict):
        raise UsageError(f"{file}: a template is a mapping of {', '.join(_REQUIRED)}, got {type(content).__name__}.")
    if unknown := sorted(str(key) for key in content if key not in (*_REQUIRED, "empty")):
        raise UsageError(
            f"{file}: unknown key '{unknown[0]}'; a template has {', '.join(_REQUIRED)} and may have empty."
        )
    if absent := [key for key in _REQUIRED if key not in content]:
        raise UsageError(f"{file}: the template lacks the key '{absent[0]}'.")
    labels, grades = (_four_texts(file, key, content[key]) for key in ("labels", "grades"))
    if any(label.split() != [label] for label in labels) or len(set(labels)) < len(labels):
        raise UsageError(f"{file}: labels: {list(labels)} must be four different answers without blanks.")
    for key in ("prefix", "pair", "empty"):
        if not isinstance(content.get(key, "-"), str) or not content.get(key, "-").strip():
            raise UsageError(f"{file}: {key}: must be text, got {content[key]!r}.")
    prefix, pair = content["prefix"].lstrip(), content["pair"].rstrip()
    _check_placeholders(file, "prefix", prefix, allowed=_OF_A_GRADE, required=())
    _check_placeholders(file, "pair", pair, allowed=_OF_A_PAIR, required=("query", "title"))
    filled = _PLACEHOLDER.sub(lambda found: grades[_OF_A_GRADE.index(found[1])], prefix)
    return PromptTemplate(name, language, filled, pair, labels, grades, content.get("empty", "none"))


def _four_texts(file: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) != len(_OF_A_GRADE):
        raise UsageError(f"{file}: {key}: must be a list of four, for the grades 0, 1, 2, 3; got {value!r}.")
    if wrong := [entry for entry in value if not isinstance(entry, str) or not entry.strip()]:
        raise UsageError(f"{file}: {key}: {wrong[0]!r} is not text; write it in quotes.")
    return tuple(value)


def _check_placeholders(file: Path, key: str, text: str, allowed: Sequence[str], required: Sequence[str]) -> None:
    found = _PLACEHOLDER.findall(text)
    for name in found:
        if name not in allowed:
            why = " belongs into pair: all prompts must share the prefix" if name in _OF_A_PAIR else " is unknown"
            known = ", ".join(f"{{{name}}}" for name in allowed)
            raise UsageError(f"{file}: {key}: the placeholder {{{name}}}{why}; {key} may hold {known}.")
    for name in required:
        if name not in found:
            raise UsageError(f"{file}: {key}: lacks the placeholder {{{name}}}.")


def catalogue_language(titles: pl.Series) -> str:
    """Language of a catalogue by the script of its titles: "zh", "ja" or else "en".

    Chinese or Japanese if most titles hold such characters; of these Japanese if a third hold kana, since Chinese
    sellers put a stray の into a title and Japanese ones hardly write a title without kana.
    """
    unspaced = titles.drop_nulls().head(10_000).str.contains(f"[{UNSPACED}]")
    if not len(unspaced) or unspaced.mean() <= 0.5:  # type: ignore[operator]
        return "en"
    kana = titles.drop_nulls().head(10_000).filter(unspaced).str.contains(r"[\p{Hiragana}\p{Katakana}]")
    return "ja" if kana.mean() >= 1 / 3 else "zh"  # type: ignore[operator]


def label_token_ids(tokenizer: Any, template: PromptTemplate) -> list[int]:
    """The token of each label, in grade order.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: whose labels are looked up.

    Raises:
        UsageError: a label is not a single token of this tokenizer, or two labels share one.
    """
    tokens: list[int] = []
    for label in template.labels:
        pieces = tokenizer.encode(label, add_special_tokens=False)
        if len(pieces) != 1 or pieces[0] in tokens or pieces[0] == getattr(tokenizer, "unk_token_id", None):
            raise UsageError(
                f"label '{label}' of prompt {template.name}.{template.language} is not one token of its own in the "
                f"teacher's tokenizer (it gives {pieces}); use a teacher whose tokenizer holds the labels as single "
                "tokens, or a template with other labels."
            )
        tokens.append(pieces[0])
    return tokens


def tokenise_prompts(tokenizer: Any, template: PromptTemplate, pairs: pl.DataFrame, max_length: int) -> list[list[int]]:
    """Token ids of each prompt, the same for training and for every engine.

    A tokenizer with a chat template gets the prompt as one user message with the answer opened; thinking is off. A
    prompt longer than `max_length` loses the end of its title and nothing else; one that is too long even without a
    title comes back whole, for the engine to refuse.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: what is asked.
        pairs: as `PromptTemplate.render` takes them, n rows.
        max_length: tokens of a prompt.

    Returns:
        n lists of token ids.
    """
    prompts = _tokenise(tokenizer, template, pairs)
    long = [row for row, prompt in enumerate(prompts) if len(prompt) > max_length]
    if not long:
        return prompts
    cut = pairs[long].with_columns(_normal(pairs["title"][long]))
    pieces = _encode(tokenizer, cut["title"].to_list())
    kept, sizes = [len(title) for title in pieces], [len(prompts[row]) for row in long]
    # A shorter title moves words from shared to missing, so one cut is mostly, and not always, enough.
    while rest := [place for place, size in enumerate(sizes) if size > max_length and kept[place]]:
        for place in rest:
            kept[place] = max(0, kept[place] - (sizes[place] - max_length))
        # The last token kept may hold half a character.
        titles = [tokenizer.decode(pieces[place][: kept[place]]).rstrip("\ufffd") for place in rest]
        shorter = _tokenise(tokenizer, template, cut[rest].with_columns(pl.Series("title", titles, pl.String)))
        for place, prompt in zip(rest, shorter, strict=True):
            sizes[place] = len(prompt)
            if len(prompt) <= max_length:
                prompts[long[place]] = prompt
    return prompts


def _tokenise(tokenizer: Any, template: PromptTemplate, pairs: pl.DataFrame) -> list[list[int]]:
    """Token ids of whole prompts, however long. The shared prefix is tokenised once where that changes nothing."""
    head, tail = _chat_frame(tokenizer)
    prefix = head + template.prefix
    bodies = [prompt[len(template.prefix) :] + tail for prompt in template.render(pairs)]
    # No tokenizer of a language model joins a line's end to the letter that starts the next line; one that treats the
    # start of a text specially (a blank put before it) shows in any prompt.
    if len(bodies) > _SHARE_ABOVE and prefix.endswith("\n") and re.match(r"\w", template.pair):
        shared = _encode(tokenizer, [prefix])[0]
        sample = bodies[:: len(bodies) // 8]
        whole = _encode(tokenizer, [prefix + body for body in sample])
        if whole == [shared + body for body in _encode(tokenizer, sample)]:
            return [shared + body for body in _encode(tokenizer, bodies)]
    return _encode(tokenizer, [prefix + body for body in bodies])


def _chat_frame(tokenizer: Any) -> tuple[str, str]:
    """What the tokenizer's chat template puts before and after one user message; two empty texts without one."""
    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    message = "prectr-prompt"
    framed = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    head, _, tail = framed.partition(message)
    if head + message + tail != framed or message in tail or message not in framed:
        raise UsageError(
            "the teacher's chat template does not show a user's message once as it is; use another teacher."
        )
    return head, tail


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids without special tokens of the tokenizer's own; the fast path makes no masks."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def show_prompt(template: PromptTemplate, tokenizer: Any | None, pair: pl.DataFrame) -> str:
    """A page about one prompt, for `prectr teacher prompt`.

    Args:
        template: what is asked.
        tokenizer: the teacher's; None for one behind a URL, which counts tokens and frames the chat by itself.
        pair: as `PromptTemplate.render` takes them, one row.

    Returns:
        Version, language, labels with their tokens and definitions, numbers of tokens, and the prompt as it is asked.

    Raises:
        UsageError: a label is not one token.
    """
    prompt = template.render(pair)[0]
    lines = [f"prompt    {template.version}", f"language  {template.language}"]
    tokens = [""] * len(template.labels)
    if tokenizer is None:
        lines.append("tokens    counted by the teacher's server, which also frames the prompt as a chat")
    else:
        tokens = [f" (token {token})" for token in label_token_ids(tokenizer, template)]
        head, tail = _chat_frame(tokenizer)
        counts = [len(ids) for ids in _encode(tokenizer, [head + template.prefix, head + prompt + tail])]
        lines.append(f"tokens    {counts[0]} in the prefix that all prompts share, {counts[1]} in this prompt")
        prompt = head + prompt + tail
    answers = zip(template.labels, tokens, template.grades, strict=True)
    lines += [f"label     {label}{token}: {definition}" for label, token, definition in answers]
    return "\n".join([*lines, "", prompt])
