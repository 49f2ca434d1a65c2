"""Contract of an engine: its input, its output columns, and helpers that several engines use.

An engine turns a Ray Dataset of questions into a Dataset of answers. The pipeline uses nothing else of it.

| in | | out | |
|---|---|---|---|
| key | string | key | string |
| query, title | string | level_0..level_3 | float32, normalised over the four labels |
| further prompt fields | string | outside_mass | float32, probability of any other token |
| | | error | string, empty for a good row, `UNASKED` for a question that a stopped run did not ask |

A row that fails is returned with its reason and never makes other rows fail. Nothing here loads a model.
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


UNASKED = "not asked: the run was stopped"
"""Error of a question that was not asked, or not to the end, because the run was stopped."""


@dataclass(frozen=True)
class Question:
    """Everything besides the texts that an engine needs.

    Attributes:
        teacher: a checkpoint directory, a model's name on the hub, or the base URL of an OpenAI-compatible server.
        template: the prompt template.
        label_tokens: token ids of the labels, in grade order; empty if a server tokenises.
        config: settings of engine, replicas and decoding.
    """

    teacher: str
    template: PromptTemplate
    label_tokens: tuple[int, ...]
    config: LabelConfig

    @property
    def decoding(self) -> str:
        """How the answer is read, as part of a label's key.

        All engines read the next token's distribution, so the engine's name is left out. For a teacher behind a URL,
        number format and length are left out too, because the server sets them.
        """
        if is_url(self.teacher):
            return "next-token-softmax"
        return f"next-token-softmax,{self.config.data_type},{self.config.max_length}"


def is_url(teacher: str) -> bool:
    """Whether a teacher is given as the URL of a server."""
    return teacher.startswith(("http://", "https://"))


def length_errors(prompts: Sequence[Sized], max_length: int) -> list[str]:
    """Return an error message for each prompt with more than `max_length` tokens, "" for the others."""
    return [
        f"the prompt has {len(prompt)} tokens, more than label.max_length ({max_length})"
        if len(prompt) > max_length
        else ""
        for prompt in prompts
    ]


def answer_columns(mass: np.ndarray) -> dict[str, np.ndarray]:
    """Turn label masses into the columns level_0..level_3, normalised over the labels, and outside_mass.

    Args:
        mass: [n, 4] probability of each label as the next token; NaN in the rows that failed.
    """
    total = mass.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.where(total[:, None] > 0, mass / total[:, None], 1.0 / mass.shape[1])
    columns = {f"level_{level}": levels[:, level].astype(np.float32) for level in range(mass.shape[1])}
    return columns | {"outside_mass": np.clip(1.0 - total, 0.0, 1.0).astype(np.float32)}


def replica_gpus(config: LabelConfig) -> float:
    """GPUs of a replica: the configured number, else one if the running cluster has any, else none."""
    if config.replicas.gpus is not None:
        return config.replicas.gpus
    import ray

    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def restart_limits(config: LabelConfig) -> dict[str, int]:
    """Arguments of `map_batches` that limit how often Ray restarts a dead replica and repeats its task."""
    return {"max_restarts": config.replicas.restarts, "max_task_retries": config.replicas.restarts}


def map_replicas(
    questions: "ray.data.Dataset", replica: type, question: Question, **options: Any
) -> "ray.data.Dataset":
    """Call `map_batches` with an autoscaled pool of `replica` actors, with the resources and restarts of `replicas`."""
    import ray.data

    replicas = question.config.replicas
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # there is no other argument for restarts
        return questions.map_batches(
            replica,
            compute=ray.data.ActorPoolStrategy(min_size=replicas.at_least, max_size=replicas.at_most),
            num_cpus=replicas.cpus,
            memory=memory_bytes(replicas.memory_gib),
            resources=replicas.resources or None,
            **restart_limits(question.config),
            **options,
        )
