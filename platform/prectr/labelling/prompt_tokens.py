"""Questions to token ids, as a step of a Ray Data pipeline: the same ids for every engine that takes them.

Runs in tasks, so that a large run is tokenised as it streams, while the engine loads its weights.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from prectr.labelling.engines import Question
from prectr.labelling.prompt import tokenise_prompts

if TYPE_CHECKING:
    import ray.data


def with_prompt_tokens(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Columns key, prompt_tokens (list of int32), one row a question."""
    return questions.map_batches(
        tokenise,
        fn_kwargs={"question": question},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0.25,
    )


def tokenise(batch: pa.Table, question: Question) -> pa.Table:
    """One block of `with_prompt_tokens`."""
    pairs = pl.DataFrame(batch)
    prompts = tokenise_prompts(_tokenizer(question.teacher), question.template, pairs, question.config.max_length)
    return pa.table({"key": batch["key"], "prompt_tokens": pa.array(prompts, pa.list_(pa.int32()))})


@lru_cache(maxsize=1)
def _tokenizer(teacher: str) -> Any:
    from prectr.labelling.teacher_model import load_tokenizer

    return load_tokenizer(teacher)
