"""Tokenisation of questions as a step of a Ray Data pipeline, with the same token ids for every engine.

The step runs in separate actors, so that questions are tokenised as they stream and while the engine loads its weights.
It uses actors and not tasks, because each process has to import transformers and load the tokenizer first.
"""

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from prectr.labelling.engines.contract import Question
from prectr.labelling.prompt import tokenise_prompts

if TYPE_CHECKING:
    import ray.data

CPUS = 0.25
"""Logical CPUs of a step that feeds the engine, a fraction so that both fit on a small machine."""


def with_prompt_tokens(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Tokenise the questions: columns key and prompt_tokens (list of int32), one row per question."""
    import ray.data

    return questions.map_batches(
        PromptTokens,
        fn_constructor_kwargs={"question": question},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=question.config.replicas.at_most),
        num_cpus=CPUS,
    )


class PromptTokens:
    """Actor of `with_prompt_tokens`."""

    def __init__(self, question: Question) -> None:
        from prectr.labelling.own_teacher.model import load_tokenizer

        self._question, self._tokenizer = question, load_tokenizer(question.teacher)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Tokenise one block."""
        question = self._question
        prompts = tokenise_prompts(self._tokenizer, question.template, pl.DataFrame(batch), question.config.max_length)
        return pa.table({"key": batch["key"], "prompt_tokens": pa.array(prompts, pa.list_(pa.int32()))})
