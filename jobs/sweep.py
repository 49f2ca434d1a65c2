"""sweep: search settings of `train` with Ray Tune (Optuna proposes, ASHA stops early), resumable trial by trial.

The artifact holds `best.yaml`, which `prectr train --config` takes, `trials.json` and a page with a picture.
"""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.train import build_ranker_from
from prectr import progress
from prectr.artifacts import StageResult, fingerprint, require_artifact, run_stage, stage_identity, write_json
from prectr.configuration import FrozenConfig
from prectr.errors import PrectrError, UsageError
from prectr.ray_session import RayConfig, ray_session
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_progress import SweepProgress
from prectr.training.sweep_trials import drawn_config, run_trial, search_space

BEST, TRIALS, PAGE = "best.yaml", "trials.json", "trials.html"
EXPERIMENT = "sweep"


class _Searched(FrozenConfig):
    """What a sweep is made of."""

    sweep: SweepConfig
    train: TrainConfig


def run(
    *,
    samples: Path,
    encoder: Path,
    out: Path,
    config: SweepConfig,
    train: TrainConfig,
    ray_config: RayConfig | None = None,
    resume: bool = False,
    force: bool = False,
) -> StageResult:
    """Search `config.search` around `train` on `samples` and publish the best settings at `out`.

    A sweep that was killed goes on where it was: finished trials are not run again, nor are they when `config.trials`
    of a later call is larger.

    Raises:
        UsageError: a searched setting does not exist, or `resume` is asked for and nothing is there to resume.
    """
    require_artifact(samples, "build-samples")
    require_artifact(encoder, "distill")
    _check_space(config, train)
    inputs: dict[str, Path | str] = {"samples": samples, "encoder": encoder}
    searched = _Searched(sweep=config, train=train)
    kept = _kept(out, searched, inputs)
    if force:
        shutil.rmtree(kept, ignore_errors=True)
    if resume and not kept.exists():
        raise UsageError(
            f"{out}: there is no unfinished sweep of these settings and inputs to resume; leave out --resume."
        )

    def build(staging: Path) -> dict[str, Any]:
        with ray_session(ray_config):
            trials = _search(kept, samples, encoder, config, train)
        facts = _write(staging, trials, config, train)
        shutil.rmtree(kept, ignore_errors=True)
        return facts

    return run_stage("sweep", out, config=searched, inputs=inputs, build=build, force=force)


def _check_space(config: SweepConfig, train: TrainConfig) -> None:
    """Refuse a setting that does not exist before anything runs."""
    for name, space in config.search.items():
        value = space.choices[0] if space.choices is not None else space.low
        try:
            drawn_config(train.model_dump(mode="json"), {name: int(value) if space.integer else value})  # type: ignore[arg-type]
        except ValidationError as error:
            raise UsageError(f"sweep.search: train.{name}: {error.errors()[0]['msg']} (got {value!r}).") from None


def _kept(out: Path, searched: _Searched, inputs: Mapping[str, Path | str]) -> Path:
    """Where Ray Tune keeps the trials until the sweep is published."""
    identity = stage_identity("sweep", searched, {name: fingerprint(value) for name, value in inputs.items()})
    return out.parent / f".{out.name}.sweep-{identity}"


def _search(kept: Path, samples: Path, encoder: Path, config: SweepConfig, train: TrainConfig) -> list[dict[str, Any]]:
    """Run what is left of the sweep; every trial with its settings and the figures of each validation."""
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trial = tune.with_resources(
        functools.partial(
            run_trial,
            train=train.model_dump(mode="json"),
            samples=str(samples.resolve()),
            encoder=str(encoder.resolve()),
            build_ranker=build_ranker_from,
        ),
        {"CPU": float(train.cpus)},
    )
    mode = "min" if config.metric == "logloss" else "max"
    experiment = kept / EXPERIMENT
    if tune.Tuner.can_restore(str(experiment)):
        progress.say(f"sweep: goes on with a sweep that was stopped ({kept})")
        tuner = tune.Tuner.restore(
            str(experiment.resolve()), trainable=trial, resume_unfinished=True, restart_errored=True
        )
    else:
        kept.mkdir(parents=True, exist_ok=True)
        tuner = tune.Tuner(
            trial,
            param_space=search_space(config.search),
            tune_config=tune.TuneConfig(
                num_samples=config.trials,
                max_concurrent_trials=config.parallel,
                search_alg=OptunaSearch(metric=config.metric, mode=mode, seed=config.seed),
                scheduler=ASHAScheduler(
                    metric=config.metric,
                    mode=mode,
                    max_t=train.epochs * train.evaluations_per_epoch,
                    grace_period=min(config.grace, train.epochs * train.evaluations_per_epoch),
                    reduction_factor=config.reduction,
                ),
            ),
            run_config=tune.RunConfig(
                name=EXPERIMENT,
                storage_path=str(kept.resolve()),
                verbose=0,
                callbacks=[SweepProgress(config.metric, config.trials)],
            ),
        )
    return [_told(result, config) for result in tuner.fit()]


def _told(result: Any, config: SweepConfig) -> dict[str, Any]:
    """One trial: settings, figures of each validation, its best, and its error if it failed."""
    names = ("epoch", "step", "loss", "gauc", "auc", "auc_position_free", "logloss")
    frame = result.metrics_dataframe
    points = [] if frame is None else [{name: row[name] for name in names} for row in frame.to_dict("records")]
    better = min if config.metric == "logloss" else max
    return {
        "settings": dict(result.config),
        "points": points,
        "best": better((point[config.metric] for point in points), default=None),
        "seconds": None if frame is None else float(frame["time_total_s"].iloc[-1]),
        "error": None if result.error is None else str(result.error).strip().splitlines()[-1],
    }


def _write(staging: Path, trials: list[dict[str, Any]], config: SweepConfig, train: TrainConfig) -> dict[str, Any]:
    """Leave best.yaml, trials.json and the page.

    Raises:
        PrectrError: no trial came to a validation.
    """
    import yaml

    from prectr.reporting.sweep_page import render_sweep

    done = [trial for trial in trials if trial["best"] is not None]
    if not done:
        raise PrectrError(f"sweep: all {len(trials)} trials failed; the first with: {trials[0]['error']}")
    better = min if config.metric == "logloss" else max
    best = better(done, key=lambda trial: trial["best"])
    found = drawn_config(train.model_dump(mode="json"), best["settings"]).model_copy(update={"workers": train.workers})
    heading = f"# `prectr train --config` takes this: {config.metric} {best['best']:.6g} on the validation day\n"
    content = yaml.safe_dump({"train": json.loads(found.model_dump_json())}, sort_keys=False)
    (staging / BEST).write_text(heading + content, encoding="utf-8")
    facts = {"trials": trials, "best": best, "metric": config.metric}
    write_json(staging / TRIALS, facts)
    (staging / PAGE).write_text(render_sweep(facts, train.model.name), encoding="utf-8")
    progress.say(f"sweep: best {config.metric} {best['best']:.6g} with {_short(best['settings'])}")
    return {"rows": {"trials": len(trials), "failed": len(trials) - len(done)}, "best": best}


def _short(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items()
    )


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("sweep")
