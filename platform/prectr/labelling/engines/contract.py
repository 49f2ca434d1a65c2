"""The contract of an engine: the question it gets, the columns it gives back, and what engines share.

An engine takes a Ray Dataset of questions and gives one of answers; the pipeline sees nothing else of it.

| in | | out | |
|---|---|---|---|
| key | string | key | string |
| query, title | string | level_0..level_3 | float32, normalised over the four labels |
| further prompt fields | string | outside_mass | float32, probability of any other token |
| | | error | string, empty for a good row |

A row that fails comes back with its reason and never fails its neighbours. Nothing here loads a model.
"""

import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prectr.core.ray_session import memory_bytes
from prectr.labelling.config import LabelConfig
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
