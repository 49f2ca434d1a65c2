"""Train the rows of a table: every contestant with every seed, reusing what is there and going on after a kill.

Each training is the artifact that `train` publishes, so one that is up to date is not run again, and one that was
killed goes on from its checkpoint. Seeds come in turn: a run that is stopped leaves whole columns of the table.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from jobs import train
from prectr.core import progress
from prectr.core.ray_session import RayConfig, ray_session
from prectr.evaluation.contestants import Contestant
from prectr.training.config import TrainConfig


def bundle_path(rankers: Path, name: str, config: TrainConfig, seed: int) -> Path:
    """Where a contestant's bundle lies: `train`'s own seed has the plain name, so that its bundle counts."""
    return rankers / (name if seed == config.seed else f"{name}.seed-{seed}")


def run(
    contestants: Sequence[Contestant],
    seeds: int,
    *,
    samples: Path,
    encoder: Path,
    preferences: Path,
    rankers: Path,
    config: TrainConfig,
    ray_config: RayConfig | None = None,
    force: bool = False,
) -> dict[str, list[Path]]:
    """Train contestants with `seeds` seeds from `config.seed` on; the bundles of each by seed.

    Raises:
        UsageError, PrectrError: as `jobs.train.run`.
    """
    bundles: dict[str, list[Path]] = {contestant.name: [] for contestant in contestants}
    left = [(contestant, seed) for seed in range(config.seed, config.seed + seeds) for contestant in contestants]
    seconds: dict[str, float] = {}
    with ray_session(ray_config):
        for number, (contestant, seed) in enumerate(left):
            path = bundle_path(rankers, contestant.name, config, seed)
            progress.say(
                f"training {number + 1} of {len(left)}: {contestant.label}, seed {seed}{_rest(left[number:], seconds)}"
            )
            clock = time.perf_counter()
            result = train.run(
                samples=samples,
                encoder=encoder,
                preferences=preferences,
                out=path,
                config=contestant.config(config, seed),
                force=force,
            )
            if not result.skipped:
                seconds[contestant.name] = time.perf_counter() - clock
            bundles[contestant.name].append(path)
    return bundles


def _rest(left: Sequence[tuple[Contestant, int]], seconds: dict[str, float]) -> str:
    """How long it may take, from the last training of each contestant; others are taken for as long as the mean."""
    if not seconds:
        return ""
    mean = sum(seconds.values()) / len(seconds)
    rest = sum(seconds.get(contestant.name, mean) for contestant, _ in left)
    return f"; {len(left)} to go, about {max(rest / 60, 1):.0f} min"
