"""A teacher made ready to be asked: which engine, which prompt, which tokens, and under which context it is remembered.

The batch job, the served teacher and `prectr teacher prompt` all start here, so that they ask the same.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from prectr.core.errors import UsageError
from prectr.labelling.config import LabelConfig, Language
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import EngineName, Question, is_url
from prectr.labelling.ledger import Context, model_fingerprint
from prectr.labelling.prompt import PromptTemplate, catalogue_language, label_token_ids, load_prompt


@dataclass(frozen=True)
class Teacher:
    """A question that an engine can answer, and the context of its answers."""

    question: Question
    engine: EngineName
    context: Context


def teacher_source(teacher: str | Path) -> Path | str:
    """A checkpoint's directory as a path; a URL or a name on the hub as it is.

    Raises:
        UsageError: it looks like a directory, and there is none.
    """
    if isinstance(teacher, str) and is_url(teacher):
        return teacher.rstrip("/")
    directory = Path(teacher)
    if directory.is_dir():
        return directory.resolve()
    if isinstance(teacher, Path) or directory.is_absolute() or teacher.startswith("."):
        raise UsageError(f"teacher {teacher}: no such directory; make one with `prectr train-teacher --out {teacher}`.")
    return teacher


def template_for(prompt: str, language: Language, titles: pl.Series) -> PromptTemplate:
    """The template in the catalogue's language."""
    return load_prompt(prompt, catalogue_language(titles) if language == "auto" else language)


def recognise_teacher(teacher: str | Path, config: LabelConfig, template: PromptTemplate) -> Teacher:
    """Who the teacher is, and so what the ledger knows of it; its labels are not checked yet.

    Raises:
        UsageError: it is not there, or cannot be reached.
    """
    source = str(teacher_source(teacher))
    engine = choose_engine(config.engine, source)
    if engine == "http":
        from prectr.labelling.engines.http_engine import probe

        found = probe(Question(source, template, (), config))
        config, fingerprint = config.model_copy(update={"http": found.http}), found.fingerprint
    else:
        fingerprint = model_fingerprint(source)
    question = Question(source, template, (), config)
    context = Context(
        prompt=template.version,
        model=fingerprint,
        decoding=question.decoding,
        teacher=source,
        prompt_text=template.text,
    )
    return Teacher(question, engine, context)


def with_label_tokens(teacher: Teacher) -> Teacher:
    """The teacher, ready to be asked: each label is one token of it. Loads its tokenizer, which takes seconds.

    Raises:
        UsageError: a label is not a single token, and the message names it; or there is no tokenizer.
    """
    if teacher.engine == "http":  # the server was asked for them
        return teacher
    from prectr.labelling.own_teacher.model import load_tokenizer

    question = teacher.question
    tokens = label_token_ids(load_tokenizer(question.teacher), question.template)
    return replace(teacher, question=replace(question, label_tokens=tuple(tokens)))


def prepare_teacher(teacher: str | Path, config: LabelConfig, template: PromptTemplate) -> Teacher:
    """Both of the above, for those who will certainly ask."""
    return with_label_tokens(recognise_teacher(teacher, config, template))
