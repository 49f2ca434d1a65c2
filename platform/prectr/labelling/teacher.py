"""A teacher made ready to be asked: which engine, which prompt, which tokens, and under which context it is remembered.

The batch job, the served teacher and `--show-prompt` all start here, so that they ask the same.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from prectr.errors import UsageError
from prectr.labelling.config import LabelConfig, Language
from prectr.labelling.engines import EngineName, Question, choose_engine, is_url
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


def prepare_teacher(teacher: str | Path, config: LabelConfig, template: PromptTemplate) -> Teacher:
    """Check that the teacher can answer: it is there, and each label is one token of it.

    Raises:
        UsageError: it is not there, cannot be reached, or a label is not a single token; the message names it.
    """
    source = str(teacher_source(teacher))
    engine = choose_engine(config.engine, source)
    if engine == "http":
        from prectr.labelling.http_engine import probe

        found = probe(Question(source, template, (), config))
        config = config.model_copy(update={"http": found.http})
        question, fingerprint = Question(source, template, (), config), found.fingerprint
    else:
        from prectr.labelling.teacher_model import load_tokenizer

        tokens = tuple(label_token_ids(load_tokenizer(source), template))
        question, fingerprint = Question(source, template, tokens, config), model_fingerprint(source)
    context = Context(
        prompt=template.version,
        model=fingerprint,
        decoding=question.decoding,
        teacher=source,
        prompt_text=template.text,
    )
    return Teacher(question, engine, context)
