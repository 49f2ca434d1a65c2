"""The teacher through vLLM under `ray.data.llm`.

One token is asked for, with the log-probabilities of exactly the label tokens (`logprob_token_ids`), taken before any
sampling: the soft label needs no constrained decoding and no text parsing. Tokenising, chat template and detokenising
stages are off: prompts come as token ids, the same ids that training saw, and on a small machine each further stage
would hold a logical CPU for the whole pipeline (Ray then waits for ever).
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from prectr import progress
from prectr.labelling.engines import Question
from prectr.labelling.transformers_engine import answer_columns
from prectr.ray_session import silence_ray

if TYPE_CHECKING:
    import ray.data


def answer_with_vllm(prompts: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer with one vLLM engine (CPU, or one GPU where the cluster has any)."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    tokens = list(question.label_tokens)
    # The prompt's length plus the one answer token.
    engine = {
        "max_model_len": question.max_length + 1,
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "dtype": question.data_type,
    }
    on_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    config = vLLMEngineProcessorConfig(
        model_source=question.teacher,
        engine_kwargs=engine,
        concurrency=1,
        batch_size=question.batch_size,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
        accelerator_type=None,
        placement_group_config=None if on_gpu else {"bundles": [{"CPU": 1}]},
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
    )
    # One dictionary for all rows: rows of different shapes would be unified by Arrow with None fields.
    sampling = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": tokens, "detokenize": False}

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {"key": row["key"], "tokenized_prompt": row["prompt_tokens"], "sampling_params": sampling}

    # The builder calls ray.init() again, which resets Ray's loggers and says so.
    quiet = progress.verbosity() < 1
    if quiet:
        logging.disable(logging.WARNING)
    try:
        processor = build_processor(config, preprocess=ask)
    finally:
        if quiet:
            logging.disable(logging.NOTSET)
            silence_ray()
    return processor(prompts).map_batches(
        collapse, fn_kwargs={"tokens": tokens}, batch_size=None, batch_format="pandas", num_cpus=0.25
    )


def collapse(batch: Any, tokens: list[int]) -> dict[str, Any]:
    """Turn engine rows into label columns; the token-keyed dictionaries never reach Parquet.

    A row that failed inside the engine, or lacks a label's log-probability, comes out with its `error` set.
    """
    rows = len(batch)
    errors = (
        batch["__inference_error__"].fillna("").astype(str).tolist() if "__inference_error__" in batch else [""] * rows
    )
    answers = batch["logprobs"].tolist() if "logprobs" in batch else [None] * rows
    mass = np.full((rows, len(tokens)), np.nan)
    for place, found in enumerate(answers):
        if errors[place]:
            continue
        try:
            first = found[0]
            mass[place] = [np.exp(_entry(first, token)["logprob"]) for token in tokens]
        except (TypeError, KeyError, IndexError):
            errors[place] = "the engine returned no log-probability for a label token"
    return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}


def _entry(found: Any, token: int) -> Any:
    """The entry of a token; Arrow turns integer keys into strings on the way."""
    return found[token] if token in found else found[str(token)]
