"""Which engine answers for the teacher, and what every engine must give back.

An engine takes a Ray Dataset of questions and gives one of answers; the pipeline sees nothing else of it.

| in | | out | |
|---|---|---|---|
| key | string | key | string |
| query, title | string | level_0..level_3 | float32, normalised over the four labels |
| what else the prompt shows | string | outside_mass | float32, probability of any other token |
| | | error | string, empty for a good row |

A row that fails comes back with its reason and never fails its neighbours. Nothing here loads a model.
"""

import platform
import sys
import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prectr.core.errors import UsageError
from prectr.core.ray_session import memory_bytes
from prectr.labelling.config import Engine, LabelConfig
from prectr.labelling.prompt import PromptTemplate

if TYPE_CHECKING:
    import ray.data

EngineName = Literal["vllm", "transformers", "http"]


@dataclass(frozen=True)
class Question:
    """All that an engine needs to know beside the texts.

    Attributes:
        teacher: a checkpoint directory, a model's name on the hub, or the base URL of an OpenAI-compatible server.
        label_tokens: token ids of the labels, in grade order; empty where the server tokenises.
    """

    teacher: str
    template: PromptTemplate
    label_tokens: tuple[int, ...]
    config: LabelConfig

    @property
    def decoding(self) -> str:
        """How the answer is read; part of a label's key. All engines read the next token's distribution, so the engine
        is no part of it; behind a URL number format and length are the server's business."""
        if is_url(self.teacher):
            return "next-token-softmax"
        return f"next-token-softmax,{self.config.data_type},{self.config.max_length}"


def is_url(teacher: str) -> bool:
    """Whether a teacher is named by the URL of a server."""
    return teacher.startswith(("http://", "https://"))


def choose_engine(engine: Engine, teacher: str) -> EngineName:
    """The engine that runs here: http for a URL, else vLLM where it is installed and supported, else transformers.

    Raises:
        UsageError: the engine that was asked for by name cannot serve this teacher, or cannot run here.
    """
    if is_url(teacher):
        if engine not in ("auto", "http"):
            raise UsageError(f"engine {engine}: teacher {teacher} is a URL; set label.engine=http or leave it at auto.")
        return "http"
    if engine == "http":
        raise UsageError(f"engine http: teacher {teacher} is no URL; give --teacher http://HOST:PORT/v1.")
    if engine == "transformers":
        return "transformers"
    supported = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")
    if find_spec("vllm") is not None and supported:
        return "vllm"
    if engine == "vllm":
        reason = (
            "it is not installed"
            if supported
            else f"it needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
        )
        raise UsageError(f"engine vllm: {reason}; install it, or set label.engine=transformers.")
    return "transformers"


def answer(questions: "ray.data.Dataset", question: Question, engine: EngineName) -> "ray.data.Dataset":
    """Lay out the engine's work on a Dataset of questions; it runs when the result is consumed."""
    if engine == "vllm" and question.config.vllm.through == "ray.data.llm":
        from prectr.labelling.vllm_engine import answer_with_vllm

        return answer_with_vllm(questions, question)
    if engine == "vllm":
        from prectr.labelling.vllm_actors import answer_in_actors

        return answer_in_actors(questions, question)
    if engine == "http":
        from prectr.labelling.http_engine import answer_with_http

        return answer_with_http(questions, question)
    from prectr.labelling.transformers_engine import answer_with_transformers

    return answer_with_transformers(questions, question)


def length_errors(prompts: Sequence[Sized], longest: int) -> list[str]:
    """What is wrong with each prompt's number of tokens; "" where nothing is."""
    return [
        f"the prompt has {len(prompt)} tokens, more than label.max_length ({longest})" if len(prompt) > longest else ""
        for prompt in prompts
    ]


def answer_columns(mass: np.ndarray) -> dict[str, np.ndarray]:
    """Label masses as columns: levels normalised over the labels, and what fell outside them.

    Args:
        mass: [n, 4] probability of each label as the next token; NaN in the rows that failed.
    """
    total = mass.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.where(total[:, None] > 0, mass / total[:, None], 1.0 / mass.shape[1])
    columns = {f"level_{level}": levels[:, level].astype(np.float32) for level in range(mass.shape[1])}
    return columns | {"outside_mass": np.clip(1.0 - total, 0.0, 1.0).astype(np.float32)}


def replica_gpus(config: LabelConfig) -> float:
    """GPUs that a replica asks for: what is configured, else one where the running cluster has any."""
    if config.replicas.gpus is not None:
        return config.replicas.gpus
    import ray

    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def restart_limits(config: LabelConfig) -> dict[str, int]:
    """How often Ray may start a replica that died, and ask again what it was asked, as arguments of `map_batches`."""
    return {"max_restarts": config.replicas.restarts, "max_task_retries": config.replicas.restarts}


def map_replicas(
    questions: "ray.data.Dataset", replica: type, question: Question, **options: Any
) -> "ray.data.Dataset":
    """`map_batches` over an autoscaled pool of `replica`, placed and restarted as `replicas` says."""
    import ray.data

    replicas = question.config.replicas
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # restart limits have no other way in yet
        return questions.map_batches(
            replica,
            compute=ray.data.ActorPoolStrategy(min_size=replicas.at_least, max_size=replicas.at_most),
            num_cpus=replicas.cpus,
            memory=memory_bytes(replicas.memory_gib),
            resources=replicas.resources or None,
            **restart_limits(question.config),
            **options,
        )
