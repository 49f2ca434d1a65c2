"""The teacher through vLLM's own `LLM` in Ray Data actors: the default, because nothing stands between.

A block goes to the engine whole, by one `generate`, as a bare loop would do it. `ray.data.llm` (`vllm_engine`) takes
each question through coroutines, validated rows and Arrow instead, which with a small teacher costs as much processor
time as the engine (`make bench-labelling` compares both).
"""

import multiprocessing
import os
import threading
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from prectr.labelling.config import LabelConfig
from prectr.labelling.engines.contract import Question, answer_columns, length_errors, map_replicas, replica_gpus
from prectr.labelling.engines.tokens import with_prompt_tokens

if TYPE_CHECKING:
    import ray.data


def answer_in_actors(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer with `replicas.at_least` to `at_most` actors of one engine each; a row that fails is marked, not lost."""
    gpus = replica_gpus(question.config)
    return map_replicas(
        with_prompt_tokens(questions, question),
        VllmTeacher,
        question,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_kwargs={"question": question, "on_gpu": gpus > 0},
        num_gpus=gpus * question.config.replicas.tensor_parallel,
        runtime_env=runtime_environment(question.config),
    )


class VllmTeacher:
    """One engine. It is started anew, by Ray, if its process dies."""

    def __init__(self, question: Question, on_gpu: bool) -> None:
        from vllm import LLM, SamplingParams

        self._tokens = list(question.label_tokens)
        self._longest = question.config.max_length
        self._sampling = SamplingParams(**sampling_arguments(self._tokens))
        self._engine = LLM(model=question.teacher, **engine_arguments(question.config, on_gpu))
        # `generate` waits for ever for an engine process that was killed.
        threading.Thread(target=_die_with, args=(multiprocessing.active_children(),), daemon=True).start()

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Answer one block of `key`, `prompt_tokens`."""
        prompts = batch["prompt_tokens"].to_pylist()
        mass = np.full((len(prompts), len(self._tokens)), np.nan)
        errors = length_errors(prompts, self._longest)
        good = [row for row, error in enumerate(errors) if not error]
        try:
            mass[good] = self._label_mass([prompts[row] for row in good])
        except Exception:  # one of them is refused: each alone, to learn which
            for row in good:
                try:
                    mass[row] = self._label_mass([prompts[row]])[0]
                except Exception as refusal:
                    errors[row] = f"{type(refusal).__name__}: {refusal}"[:500]
        return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}

    def _label_mass(self, prompts: list[list[int]]) -> np.ndarray:
        """Probability of each label as the next token: [n, 4]."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if not prompts:
            return np.empty((0, len(self._tokens)))
        try:
            outputs = self._engine.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts], self._sampling, use_tqdm=False
            )
        except EngineDeadError:
            os._exit(1)
        first = [output.outputs[0].logprobs[0] for output in outputs]
        return np.exp([[found[token].logprob for token in self._tokens] for found in first])


def _die_with(engine: list[multiprocessing.process.BaseProcess]) -> None:
    """End this process when one of the engine's does: Ray starts another and asks the block again."""
    connection.wait([process.sentinel for process in engine])
    os._exit(1)


CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the prefix cache on a CPU. vLLM's own 128 leave up to 127 tokens of the shared prefix to be
computed again for each question: of a rubric of 375 tokens a third. 16, as on a GPU, it refuses."""


def engine_arguments(config: LabelConfig, on_gpu: bool) -> dict[str, Any]:
    """What vLLM is started with, in the batch job and in the served teacher alike."""
    arguments: dict[str, Any] = {
        "max_model_len": config.max_length + 1,  # the prompt and its one answer token
        "enforce_eager": config.vllm.eager,
        "enable_prefix_caching": True,
        "dtype": config.data_type,
        "seed": config.seed,
        "disable_log_stats": True,
        "gpu_memory_utilization": config.vllm.gpu_memory_share,
    }
    if config.replicas.tensor_parallel > 1:
        arguments["tensor_parallel_size"] = config.replicas.tensor_parallel
    if not on_gpu:
        arguments["block_size"] = CPU_BLOCK_TOKENS
    if config.vllm.trust_remote_code:
        arguments["trust_remote_code"] = True
    return arguments | config.vllm.options


def sampling_arguments(tokens: list[int]) -> dict[str, Any]:
    """How one answer is read."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "allowed_token_ids": tokens,
        "logprob_token_ids": tokens,
        "detokenize": False,
    }


def runtime_environment(config: LabelConfig) -> dict[str, Any]:
    """What the engine's process reads from its environment."""
    return {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": str(config.vllm.cpu_cache_gib)}}
