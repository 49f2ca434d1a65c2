"""The teacher through vLLM under `ray.data.llm`, where `label.vllm.through` says so.

One token is asked for and must be a label (`allowed_token_ids`); the soft label is read from the log-probabilities of
exactly the label tokens (`logprob_token_ids`), which vLLM takes before that constraint, so that the mass outside the
labels is known, and no text is parsed. Chat template, tokenising and detokenising stages are off: prompts come as token
ids, the same ids that training saw, and on a small machine each further stage would hold a logical CPU for the whole
pipeline (Ray then waits for ever).
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from prectr.core import progress
from prectr.core.ray_session import memory_bytes, silence_ray
from prectr.labelling.engines.contract import Question, answer_columns, replica_gpus, restart_limits
from prectr.labelling.engines.tokens import CPUS, with_prompt_tokens
from prectr.labelling.engines.vllm_engine import engine_arguments, runtime_environment, sampling_arguments

if TYPE_CHECKING:
    import ray.data


def answer_with_vllm(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer with `replicas.at_least` to `at_most` vLLM engines, on GPUs or on the CPU."""
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config, tokens = question.config, list(question.label_tokens)
    replicas = config.replicas
    worker: dict[str, float] = {"CPU": replicas.cpus, **replicas.resources}
    gpus = replica_gpus(config)
    if gpus:
        worker["GPU"] = gpus
    if memory := memory_bytes(replicas.memory_gib):
        worker["memory"] = memory
    processor_config = vLLMEngineProcessorConfig(
        model_source=question.teacher,
        engine_kwargs=engine_arguments(config, on_gpu=gpus > 0),
        concurrency=(replicas.at_least, replicas.at_most),
        batch_size=config.batch_size,
        # Ray's default keeps little more than one engine step waiting, and steps run half empty.
        max_pending_requests=4 * config.batch_size,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
        accelerator_type=None,
        placement_group_config={"bundles": [dict(worker) for _ in range(replicas.tensor_parallel)]},
        runtime_env=runtime_environment(config),
    )
    # One dictionary for all rows: rows of different shapes would be unified by Arrow with None fields.
    sampling = sampling_arguments(tokens)

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {"key": row["key"], "tokenized_prompt": row["prompt_tokens"], "sampling_params": sampling}

    few = ray.data.TaskPoolStrategy(size=2 * replicas.at_most)  # each worker process more takes seconds to start
    # The builder calls ray.init() again, which resets Ray's loggers and says so.
    quiet = progress.verbosity() < 1
    if quiet:
        logging.disable(logging.WARNING)
    try:
        processor = build_processor(
            processor_config, preprocess=ask, preprocess_map_kwargs={"num_cpus": CPUS, "compute": few}
        )
    finally:
        if quiet:
            logging.disable(logging.NOTSET)
            silence_ray()
    # Ray Data's own limit is none: an engine that always dies would be started for ever.
    processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(restart_limits(config))
    return processor(with_prompt_tokens(questions, question)).map_batches(
        collapse, fn_kwargs={"tokens": tokens}, batch_size=None, batch_format="pandas", num_cpus=CPUS, compute=few
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
