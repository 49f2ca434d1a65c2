"""Engine that runs a teacher with vLLM under `ray.data.llm`, used if `label.vllm.through` is `ray.data.llm`.

The answer is one token, which must be a label (`allowed_token_ids`). The soft label is read from the log-probabilities
of exactly the label tokens (`logprob_token_ids`). vLLM computes them before it applies that constraint, so the mass
outside the labels is known, and no text is parsed. The stages for chat template, tokenising and detokenising are off:
prompts arrive as the token ids that training used, and on a small machine each further stage would hold a logical CPU
for the whole pipeline (Ray would then wait for ever).
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
    """Answer with `replicas.at_least` to `at_most` vLLM engines, on GPUs or on CPUs."""
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
        # Ray's default queues little more than one engine step, and steps then run half empty.
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
    # One dictionary for all rows: Arrow would add None fields to rows of different shapes.
    sampling = sampling_arguments(tokens)

    def engine_row(row: dict[str, Any]) -> dict[str, Any]:
        return {"key": row["key"], "tokenized_prompt": row["prompt_tokens"], "sampling_params": sampling}

    few_tasks = ray.data.TaskPoolStrategy(size=2 * replicas.at_most)  # every further process takes seconds to start
    # The builder calls ray.init() again, which resets Ray's loggers and logs that.
    quiet = progress.verbosity() < 1
    if quiet:
        logging.disable(logging.WARNING)
    try:
        processor = build_processor(
            processor_config, preprocess=engine_row, preprocess_map_kwargs={"num_cpus": CPUS, "compute": few_tasks}
        )
    finally:
        if quiet:
            logging.disable(logging.NOTSET)
            silence_ray()
    # Ray Data sets no limit: an engine that always dies would be restarted for ever.
    processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(restart_limits(config))
    return processor(with_prompt_tokens(questions, question)).map_batches(
        collapse, fn_kwargs={"tokens": tokens}, batch_size=None, batch_format="pandas", num_cpus=CPUS, compute=few_tasks
    )


def collapse(batch: Any, tokens: list[int]) -> dict[str, Any]:
    """Turn engine rows into label columns, so that dictionaries keyed by token never reach Parquet.

    A row that failed inside the engine, or lacks a label's log-probability, gets an error text.
    """
    rows = len(batch)
    errors = (
        batch["__inference_error__"].fillna("").astype(str).tolist() if "__inference_error__" in batch else [""] * rows
    )
    answers = batch["logprobs"].tolist() if "logprobs" in batch else [None] * rows
    mass = np.full((rows, len(tokens)), np.nan)
    for row, logprobs in enumerate(answers):
        if errors[row]:
            continue
        try:
            mass[row] = [np.exp(_entry(logprobs[0], token)["logprob"]) for token in tokens]
        except (TypeError, KeyError, IndexError):
            errors[row] = "the engine returned no log-probability for a label token"
    return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}


def _entry(logprobs: Any, token: int) -> Any:
    """Look up a token. Arrow may have turned integer keys into strings."""
    return logprobs[token] if token in logprobs else logprobs[str(token)]
