"""publish: write a ranker's state of users, queries, items and pairs where servers read it: LMDB or Redis."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import PATH, Answer, command
from prectr.core import progress
from prectr.ranking.bundle import Bundle
from prectr.serving.publish import publish, state_size
from prectr.serving.states import StateInfo


@command("publish", show=lambda info: Answer(info.model_dump(), show=lambda: _print(info)))
def run(
    *,
    ranker: Annotated[Path, typer.Argument(help="The bundle whose state is published.", **PATH)],
    to: Annotated[str, typer.Option("--to", help="Directory (LMDB), or redis://HOST:PORT/DB.")],
) -> StateInfo:
    """Publish the state in a bundle at `to`, a directory or redis://HOST:PORT/DB; running servers switch to it.

    Raises:
        UsageError: no bundle there, or `to` is neither a directory nor a Redis URL.
        PrectrError: Redis does not answer.
    """
    bundle = Bundle.open(ranker)
    with progress.track("publish", total=state_size(bundle), unit="entries") as bar:
        return publish(bundle, to, bar.advance)


def _print(info: StateInfo) -> None:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(info.entries.items()))
    print(f"published version {info.version}: {counts}")
