"""publish: a ranker's state of users, queries, items and pairs where servers read it, LMDB or Redis."""

from pathlib import Path

from prectr.core import progress
from prectr.ranking.bundle import Bundle
from prectr.serving.publish import publish, state_size
from prectr.serving.states import StateInfo


def run(*, ranker: Path, to: str) -> StateInfo:
    """Publish the state in a bundle at `to`, a directory or redis://HOST:PORT/DB; servers change to it by themselves.

    Raises:
        UsageError: no bundle there, or the address is none.
        PrectrError: Redis does not answer.
    """
    bundle = Bundle.open(ranker)
    with progress.track("publish", total=state_size(bundle), unit="entries") as bar:
        return publish(bundle, to, bar.advance)


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("publish")
