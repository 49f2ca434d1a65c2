"""Preparation of a teacher: its engine, prompt and label tokens, and the ledger context of its answers.

The batch job, the served teacher and `prectr teacher prompt` all start here, so that they ask the same
question. This module loads no model weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from prectr.core.artifacts import read_manifest, require_artifact
from prectr.core.errors import UsageError
from prectr.labelling.config import LabelConfig, Language
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import EngineName, Question, is_url
from prectr.labelling.ledger import Context, model_fingerprint
from prectr.labelling.prompt import PromptTemplate, catalogue_language, label_token_ids, load_prompt


@dataclass(frozen=True)
class Teacher:
    """A teacher with its settings.

    Attributes:
        question: everything besides the texts that an engine needs.
        engine: the engine that answers.
        context: the context of the answers in the ledger.
    """

    question: Question
    engine: EngineName
    context: Context


def teacher_source(teacher: str | Path) -> Path | str:
    """Resolve a teacher: a checkpoint's directory to an absolute path; a URL or a name on the hub stays as it is.

    Raises:
        UsageError: the teacher looks like a directory, and there is none; or it is an artifact of another stage than
            `train-teacher`, or of another schema version.
    """
    if isinstance(teacher, str) and is_url(teacher):
        return teacher.rstrip("/")
    directory = Path(teacher)
    if directory.is_dir():
        if read_manifest(directory) is not None:
            require_artifact(directory, "train-teacher")
        return directory.resolve()
    if isinstance(teacher, Path) or directory.is_absolute() or teacher.startswith("."):
        raise UsageError(f"teacher {teacher}: no such directory; make one with `prectr train-teacher --out {teacher}`.")
    return teacher


def template_for(prompt: str, language: Language, titles: pl.Series) -> PromptTemplate:
    """Load the prompt template; with language `auto`, in the language of the catalogue's `titles`."""
    return load_prompt(prompt, catalogue_language(titles) if language == "auto" else language)


def recognise_teacher(teacher: str | Path, config: LabelConfig, template: PromptTemplate) -> Teacher:
    """Identify the teacher, which selects its context in the ledger. Does not look up its label tokens yet.

    Raises:
        UsageError: the teacher does not exist, or cannot be reached.
    """
    source = str(teacher_source(teacher))
    engine = choose_engine(config.engine, source)
    if engine == "http":
        from prectr.labelling.engines.http_engine import probe

        server_probe = probe(Question(source, template, (), config))
        config, fingerprint = config.model_copy(update={"http": server_probe.http}), server_probe.fingerprint
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
    """Complete the teacher with the token of each label. Loads its tokenizer, which takes seconds.

    Raises:
        UsageError: a label is not a single token (the message names it), or there is no tokenizer.
    """
    if teacher.engine == "http":  # `recognise_teacher` has asked the server for them
        return teacher
    from prectr.labelling.own_teacher.model import load_tokenizer

    question = teacher.question
    tokens = label_token_ids(load_tokenizer(question.teacher), question.template)
    return replace(teacher, question=replace(question, label_tokens=tuple(tokens)))


def prepare_teacher(teacher: str | Path, config: LabelConfig, template: PromptTemplate) -> Teacher:
    """Identify the teacher and look up its label tokens. Raises as `recognise_teacher` and `with_label_tokens` do."""
    return with_label_tokens(recognise_teacher(teacher, config, template))
