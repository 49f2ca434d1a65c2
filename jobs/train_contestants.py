"""Train every model of a results table with every seed.

Each training is the artifact that `train` publishes: one that is up to date is not run again, and one that was killed
continues from its checkpoint. All models of one seed come before the next seed, so that a stopped run leaves complete
seeds.
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
    """Path of a model's bundle. The bundle of `train.seed` has the plain name, so that one trained before is reused."""
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
    """Train models with `seeds` seeds from `config.seed` on; returns the bundles of each model in the order of seeds.

    Raises:
        UsageError, PrectrError: as `jobs.train.run`.
    """
    bundles: dict[str, list[Path]] = {contestant.name: [] for contestant in contestants}
    trainings = [(contestant, seed) for seed in range(config.seed, config.seed + seeds) for contestant in contestants]
    seconds: dict[str, float] = {}
    with ray_session(ray_config):
        for number, (contestant, seed) in enumerate(trainings):
            path = bundle_path(rankers, contestant.name, config, seed)
            remaining = _remaining(trainings[number:], seconds)
            progress.say(f"training {number + 1} of {len(trainings)}: {contestant.label}, seed {seed}{remaining}")
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


def _remaining(trainings: Sequence[tuple[Contestant, int]], seconds: dict[str, float]) -> str:
    """Estimated time of the trainings: as long as the model's last one, or the mean where it has none."""
    if not seconds:
        return ""
    mean = sum(seconds.values()) / len(seconds)
    total = sum(seconds.get(contestant.name, mean) for contestant, _ in trainings)
    return f"; {len(trainings)} to go, about {max(total / 60, 1):.0f} min"
