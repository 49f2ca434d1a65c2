"""`teacher serve` answers for one pair at a time over HTTP; `teacher prompt` prints one prompt of the teacher.

The served teacher uses the scorer of `label`: prompt, tokens, decoding and calibration. Its answers are not kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from jobs.cluster.serve_host import (
    ServerHost,
    require_free_port,
    require_loopback,
    serving_application,
    wait_for_interrupt,
)
from jobs.options import PATH, PORT, Answer, Teacher, command
from prectr.core import progress
from prectr.core.processes import take_stop_signals
from prectr.core.ray_session import RayConfig, ray_session
from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.labelling.config import LabelConfig
from prectr.labelling.engines.contract import is_url
from prectr.labelling.prompt import show_prompt
from prectr.labelling.teacher import teacher_source, template_for
from prectr.labelling.teacher_scorer import prepare_scorer
from prectr.serving.config import ServeConfig

EXAMPLE = pl.DataFrame(
    {
        "query": ["nokia 3310 battery"],
        "title": ["Battery for Nokia 3310, 1000 mAh, new"],
        "category": ["phones > parts"],
    }
)
"""Shown where no tables are given."""


@contextmanager
def serving(
    teacher: str | Path, labels: Path | None, config: LabelConfig, serve: ServeConfig, host: ServerHost | None = None
) -> Iterator[str]:
    """Serve a teacher on the running Ray for the block; gives the base URL once requests are answered.

    Args:
        teacher: a checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server.
        labels: an artifact of `label`, whose calibration is applied; None: the teacher's levels as they are.
        config: how to ask; its `replicas` says how many copies are served, and on what.
        serve: where to listen.
        host: limits the time of the end; None: no limit.

    Raises:
        UsageError: the teacher cannot answer, or the labels are not its own.
        PrectrError: the port is taken, or the teacher did not come up.
    """
    from serve_apps.teacher import AppArguments, build_app  # starts nothing, but imports Ray Serve

    arguments = AppArguments(
        teacher=str(teacher_source(teacher)),
        labels=None if labels is None else str(labels.resolve()),
        label=config,
        max_ongoing_requests=serve.max_ongoing_requests,
    )
    with serving_application("teacher", lambda: build_app(arguments), serve, health="/health", host=host) as url:
        yield url


@command("teacher serve", shortcuts=PORT, as_json=False)
def run(
    *,
    teacher: Teacher,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Artifact of label, whose calibration is applied.", **PATH)
    ] = None,
    config: LabelConfig,
    serve: ServeConfig,
    ray_config: RayConfig | None = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on an address that other machines reach; there are no tokens.")
    ] = False,
) -> None:
    """Serve until interrupted.

    Raises:
        UsageError: the teacher cannot answer, the labels are not its own, or other machines reach the address.
        PrectrError: the port is taken, or the teacher did not come up.
    """
    if not insecure:
        require_loopback(serve, "put a gateway before it that checks who asks, and pass --insecure.")
    require_free_port(serve)
    prepare_scorer(teacher, labels, config)  # a mistake is told before Ray starts
    with ServerHost() as host, ray_session(ray_config, host.shut_down):
        take_stop_signals()  # Ray has set its own handlers
        with serving(teacher, labels, config, serve, host) as url:
            progress.say(f"serving {teacher}: judge a pair at {url}/  (POST {url}/judge, docs at {url}/docs)")
            progress.say("stop with Ctrl-C")
            wait_for_interrupt()


@command("teacher prompt", show=lambda text: Answer({"prompt": text}, show=lambda: print(text)))
def prompt(
    *,
    teacher: Teacher,
    tables: Annotated[
        Path | None, typer.Option("--tables", help="Validated tables: the pair comes from them.", **PATH)
    ] = None,
    config: LabelConfig,
) -> str:
    """A prompt exactly as the teacher gets it, with the tokens of its labels.

    The pair is the first judged one of `tables`, else one made of their first item, else an example.

    Raises:
        UsageError: no such teacher or template, or a label is not one token of the teacher.
    """
    log = None if tables is None else Tables(tables)
    pair = EXAMPLE if log is None else _first_pair(log)
    template = template_for(config.prompt, config.language, pair["title"] if log is None else log.items()["title"])
    source = str(teacher_source(teacher))
    if is_url(source):
        return show_prompt(template, None, pair)
    from prectr.labelling.own_teacher.model import load_tokenizer

    return show_prompt(template, load_tokenizer(source), pair)


def _first_pair(tables: Tables) -> pl.DataFrame:
    items = tables.items()
    shown = [column for column in ("category", "brand") if column in items.columns]
    judged = read_judged(tables).head(1).select("query", "item_id")
    if judged.is_empty():
        judged = items.head(1).select("item_id", query="title")
    return judged.join(items.select("item_id", "title", *shown), on="item_id", how="left")
