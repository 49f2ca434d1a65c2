"""Choice of the engine that runs a teacher.

Engine modules are imported only when chosen, because vLLM and transformers load slowly or may not be installed.
"""

import platform
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prectr.core.errors import UsageError
from prectr.labelling.config import Engine
from prectr.labelling.engines.contract import EngineName, Question, is_url

if TYPE_CHECKING:
    import ray.data
    from ray.actor import ActorHandle


def choose_engine(engine: Engine, teacher: str) -> EngineName:
    """Choose the engine: http for a URL, else vLLM where it is installed and supported, else transformers.

    Raises:
        UsageError: `engine` names an engine that cannot run this teacher or does not run on this machine.
    """
    if is_url(teacher):
        if engine not in ("auto", "http"):
            raise UsageError(f"engine {engine}: teacher {teacher} is a URL; set label.engine=http or auto.")
        return "http"
    if engine == "http":
        raise UsageError(
            f"engine http: teacher {teacher} is no URL; give --teacher http://HOST:PORT/v1 or set label.engine."
        )
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


def stop_signal(engine: EngineName) -> "ActorHandle | None":
    """Start a `StopSignal` in the running Ray; None for an engine that heeds none."""
    if engine != "http":
        return None
    from prectr.labelling.engines.http_engine import stop_signal

    return stop_signal()


def answer(
    questions: "ray.data.Dataset", question: Question, engine: EngineName, stop: "ActorHandle | None" = None
) -> "ray.data.Dataset":
    """Add the engine's work to a Dataset of questions. It runs when the result is consumed.

    Args:
        stop: a `StopSignal`, after which a server gets no further question; other engines do not heed it.
    """
    if engine == "vllm" and question.config.vllm.through == "ray.data.llm":
        from prectr.labelling.engines.ray_llm_engine import answer_with_vllm

        return answer_with_vllm(questions, question)
    if engine == "vllm":
        from prectr.labelling.engines.vllm_engine import answer_in_actors

        return answer_in_actors(questions, question)
    if engine == "http":
        from prectr.labelling.engines.http_engine import answer_with_http

        return answer_with_http(questions, question, stop)
    from prectr.labelling.engines.transformers_engine import answer_with_transformers

    return answer_with_transformers(questions, question)
