"""Questions to token ids, as a step of a Ray Data pipeline: the same ids for every engine that takes them.

Runs in its own actors, so that a large run is tokenised as it streams, while the engine loads its weights. Actors, and
not tasks: each worker process that tokenises has to import transformers and load the tokenizer first.
"""

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from prectr.labelling.engines.contract import Question
from prectr.labelling.prompt import tokenise_prompts

if TYPE_CHECKING:
    import ray.data

CPUS = 0.25
"""Logical CPUs of a step that feeds the engine: it must find room beside it on a small machine."""


def with_prompt_tokens(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Columns key, prompt_tokens (list of int32), one row a question."""
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
    """One actor of `with_prompt_tokens`."""

    def __init__(self, question: Question) -> None:
        from prectr.labelling.own_teacher.model import load_tokenizer

        self._question, self._tokenizer = question, load_tokenizer(question.teacher)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One block."""
        question = self._question
        prompts = tokenise_prompts(self._tokenizer, question.template, pl.DataFrame(batch), question.config.max_length)
        return pa.table({"key": batch["key"], "prompt_tokens": pa.array(prompts, pa.list_(pa.int32()))})
