"""`label --serve`: the teacher over HTTP with Ray Serve, to judge one pair at a time and see why.

The same scorer as `label`: prompt, tokens, decoding and calibration. The labels that it gives are not kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.cluster.serve_host import Served, require_free_port, serving_application, wait_for_interrupt
from prectr.core import progress
from prectr.core.ray_session import RayConfig, ray_session
from prectr.labelling.config import LabelConfig
from prectr.labelling.interactive import prepare_scorer
from prectr.labelling.teacher import teacher_source
from prectr.serving.config import ServeConfig

APPLICATION = Served("serve_apps.teacher", "teacher", "/health")


@contextmanager
def serving(teacher: str | Path, labels: Path | None, config: LabelConfig, serve: ServeConfig) -> Iterator[str]:
    """Serve a teacher on the running Ray for the block; gives the base URL once requests are answered.

    Args:
        teacher: a checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server.
        labels: an artifact of `label`, whose calibration is applied; None: the teacher's levels as they are.
        config: how to ask; its `replicas` says how many copies are served, and on what.
        serve: where to listen.

    Raises:
        UsageError: the teacher cannot answer, or the labels are not its own.
        PrectrError: the port is taken, or the teacher did not come up.
    """
    arguments = {
        "teacher": str(teacher_source(teacher)),
        "labels": None if labels is None else str(labels.resolve()),
        "label": config,
        "max_ongoing_requests": serve.max_ongoing_requests,
    }
    with serving_application(APPLICATION, arguments, serve) as url:
        yield url


def run(
    *,
    teacher: str,
    labels: Path | None,
    config: LabelConfig,
    serve: ServeConfig,
    ray_config: RayConfig | None = None,
) -> None:
    """Serve until interrupted."""
    require_free_port(serve)
    prepare_scorer(teacher, labels, config)  # a mistake is told before Ray starts
    with ray_session(ray_config), serving(teacher, labels, config, serve) as url:
        progress.say(f"serving {teacher}: judge a pair at {url}/  (POST {url}/judge, docs at {url}/docs)")
        progress.say("stop with Ctrl-C")
        wait_for_interrupt()
