"""Which engine answers for the teacher, and what every engine must give back.

An engine takes a Ray Dataset of `key`, `prompt_tokens` and gives one of `key`, `level_0..3` (normalised over the four
labels), `outside_mass` (probability of any other token) and `error` (empty for a good row). Nothing here loads a model.
"""

import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from prectr.errors import UsageError
from prectr.labelling.config import Engine

if TYPE_CHECKING:
    import ray.data

EngineName = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Question:
    """All that an engine needs to know beside the prompts."""

    teacher: str
    label_tokens: tuple[int, ...]
    """Token ids of the labels, in grade order."""
    batch_size: int
    data_type: str
    max_length: int

    @property
    def decoding(self) -> str:
        """How the answer is read; part of a label's key. Both engines read the same: the next token's distribution."""
        return f"next-token-softmax,{self.data_type},{self.max_length}"


def choose_engine(engine: Engine) -> EngineName:
    """The engine that runs here: vLLM where it is installed and supported, else transformers.

    Raises:
        UsageError: vLLM was asked for by name and cannot run here.
    """
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


def answer(prompts: "ray.data.Dataset", question: Question, engine: EngineName) -> "ray.data.Dataset":
    """Lay out the engine's work on a Dataset of prompts; it runs when the result is consumed."""
    if engine == "vllm":
        from prectr.labelling.vllm_engine import answer_with_vllm

        return answer_with_vllm(prompts, question)
    from prectr.labelling.transformers_engine import answer_with_transformers

    return answer_with_transformers(prompts, question)
