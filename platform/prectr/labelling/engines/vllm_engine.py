"""Engine that runs a teacher with vLLM's `LLM` in Ray Data actors; the default way to run vLLM.

A whole block goes to the engine in one call of `generate`, as in a loop without Ray. `ray.data.llm`
(`ray_llm_engine`) instead passes each question through coroutines, validated rows and Arrow, which with a small teacher
costs as much processor time as the engine itself (`make bench-labelling` compares both).
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
    """Answer with `replicas.at_least` to `at_most` actors, each with one engine. A failed row gets an error text."""
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
    """Actor with one vLLM engine. Ray starts it again if its process dies."""

    def __init__(self, question: Question, on_gpu: bool) -> None:
        from vllm import LLM, SamplingParams

        self._tokens = list(question.label_tokens)
        self._max_length = question.config.max_length
        self._sampling = SamplingParams(**sampling_arguments(self._tokens))
        self._engine = LLM(model=question.teacher, **engine_arguments(question.config, on_gpu))
        # `generate` would wait for ever for an engine process that was killed.
        threading.Thread(target=_exit_when_one_ends, args=(multiprocessing.active_children(),), daemon=True).start()

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Answer one block with the columns key and prompt_tokens."""
        prompts = batch["prompt_tokens"].to_pylist()
        mass = np.full((len(prompts), len(self._tokens)), np.nan)
        errors = length_errors(prompts, self._max_length)
        valid_rows = [row for row, error in enumerate(errors) if not error]
        try:
            mass[valid_rows] = self._label_mass([prompts[row] for row in valid_rows])
        except Exception:  # the engine refused a prompt: ask one at a time to learn which
            for row in valid_rows:
                try:
                    mass[row] = self._label_mass([prompts[row]])[0]
                except Exception as refusal:
                    errors[row] = f"{type(refusal).__name__}: {refusal}"[:500]
        return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}

    def _label_mass(self, prompts: list[list[int]]) -> np.ndarray:
        """Probability of each label token as the next token: [n, 4]."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if not prompts:
            return np.empty((0, len(self._tokens)))
        try:
            outputs = self._engine.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts], self._sampling, use_tqdm=False
            )
        except EngineDeadError:
            os._exit(1)
        first_logprobs = [output.outputs[0].logprobs[0] for output in outputs]
        return np.exp([[logprobs[token].logprob for token in self._tokens] for logprobs in first_logprobs])


def _exit_when_one_ends(engine_processes: list[multiprocessing.process.BaseProcess]) -> None:
    """End this process when one of the engine's processes ends. Ray then starts another and repeats the block."""
    connection.wait([process.sentinel for process in engine_processes])
    os._exit(1)


CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the prefix cache on a CPU. With vLLM's default of 128, up to 127 tokens of the shared prefix are
computed again for each question, which is a third of a rubric of 375 tokens. vLLM refuses 16, its value on a GPU."""


def engine_arguments(config: LabelConfig, on_gpu: bool) -> dict[str, Any]:
    """Arguments that start vLLM, the same in the batch job and in the served teacher."""
    arguments: dict[str, Any] = {
        "max_model_len": config.max_length + 1,  # the prompt and one answer token
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
    """Arguments of vLLM's `SamplingParams`: one token, restricted to the labels, with the labels' log-probabilities."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "allowed_token_ids": tokens,
        "logprob_token_ids": tokens,
        "detokenize": False,
    }


def runtime_environment(config: LabelConfig) -> dict[str, Any]:
    """Runtime environment of the engine's process: the size of its key-value cache on a CPU."""
    return {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": str(config.vllm.cpu_cache_gib)}}
