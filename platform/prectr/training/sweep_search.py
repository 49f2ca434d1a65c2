"""The search itself: Ray Tune runs trials, Optuna proposes them, ASHA stops those that do not get on."""

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prectr.core import progress
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SearchRange, SweepConfig
from prectr.training.sweep_ledger import REACHED, Trial, TrialLedger
from prectr.training.sweep_trials import ITERATION, drawn_config, run_trial

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger holds the points
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command; what was finished is in the ledger
    "RAY_AIR_NEW_OUTPUT": "0",  # the other output prints a table whatever `verbose` says
}


def search(
    folder: Path,
    *,
    samples: Path,
    encoder: Path,
    config: SweepConfig,
    train: TrainConfig,
    build_ranker: Callable[..., Any],
) -> list[Trial]:
    """Run the trials that are missing to `config.trials`; Ray must be running.

    Args:
        folder: holds the ledger of trials, which need not run again: Optuna and ASHA are told what they reached. Ray
            Tune's own state goes there too.
        samples: artifact of `build-samples`.
        encoder: artifact of `distill`.
        config: what is searched.
        train: the settings around the searched ones.
        build_ranker: as the training loop's.

    Returns:
        all trials, those that failed last.
    """
    from ray import tune

    from prectr.training.sweep_progress import SweepProgress

    ledger = TrialLedger(folder)
    if len(finished := ledger.read()) >= config.trials:
        return finished
    _prepare()
    callback = SweepProgress(ledger, config, len(finished))
    trial = functools.partial(
        run_trial,
        sweep=config,
        train=train,
        samples=samples.resolve(),
        encoder=encoder.resolve(),
        build_ranker=build_ranker,
    )

    def fit(trials: int, proposals: Any) -> None:
        tune.Tuner(
            tune.with_resources(trial, train.of_worker),
            tune_config=tune.TuneConfig(
                num_samples=trials,
                max_concurrent_trials=config.parallel,
                search_alg=proposals,
                scheduler=early_stopping(config, train, ledger.read()),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray-tune",
                storage_path=str(folder.resolve()),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=train.restarts),
            ),
        ).fit()

    fit(config.trials - len(finished), proposer(config, finished))
    # Tune starts a trial again that was lost at work, but not one that was lost while it was being given to a worker.
    for _ in range(train.restarts):
        if lost := callback.take_lost():
            fit(len(lost), _again(config, lost))
    return [*ledger.read(), *callback.failed]


def check_space(config: SweepConfig, train: TrainConfig) -> None:
    """Refuse a setting or a value that `train` would refuse, before anything runs.

    Raises:
        UsageError: names the setting.
    """
    for name, space in config.search.items():
        for value in space.bounds:
            drawn_config(train, {name: value})


def proposer(config: SweepConfig, finished: Sequence[Trial]) -> Any:
    """Optuna, told what was reached.

    The seed moves on with the trials that are finished: the same one would propose the first of them again.
    """
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(
        _space(config),
        metric=REACHED,
        mode=config.mode,
        seed=config.seed + len(finished),
        points_to_evaluate=[config.proposal(trial.settings) for trial in finished],
        evaluated_rewards=[trial.best for trial in finished],
    )


def _again(config: SweepConfig, proposals: Sequence[Mapping[str, Any]]) -> Any:
    """Gives out what was proposed before."""
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(_space(config), metric=REACHED, mode=config.mode, points_to_evaluate=list(proposals))


def early_stopping(config: SweepConfig, train: TrainConfig, finished: Sequence[Trial]) -> Any:
    """ASHA, told how finished trials went, so that its first rungs are not empty."""
    from ray.tune.schedulers import ASHAScheduler

    validations = _most(config, train, "epochs") * _most(config, train, "evaluations_per_epoch")
    scheduler = ASHAScheduler(
        time_attr=ITERATION,
        metric=REACHED,
        mode=config.mode,
        max_t=validations,
        grace_period=min(config.grace, validations),
        reduction_factor=config.reduction,
    )
    for number, trial in enumerate(finished):
        known: Any = SimpleNamespace(trial_id=f"finished-{number}")
        scheduler.on_trial_add(None, known)
        for iteration, point in enumerate(trial.points, start=1):
            scheduler.on_trial_result(None, known, {ITERATION: iteration, REACHED: point[REACHED]})
    return scheduler


def _most(config: SweepConfig, train: TrainConfig, name: str) -> int:
    """The largest value that a whole-numbered setting may take."""
    space = config.search.get(name)
    return int(getattr(train, name) if space is None else max(space.bounds))


def _prepare() -> None:
    """Switch off what Ray Tune and Optuna write and say beside the ledger and our own lines."""
    import optuna

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if progress.verbosity() < 1:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _space(config: SweepConfig) -> dict[str, Any]:
    return {name: _distribution(space) for name, space in config.search.items()}


def _distribution(space: SearchRange) -> Any:
    from optuna import distributions

    if space.choices is not None:
        return distributions.CategoricalDistribution([json.dumps(choice) for choice in space.choices])
    low, high = space.bounds
    if space.integer:
        return distributions.IntDistribution(low, high, log=space.log)
    return distributions.FloatDistribution(low, high, log=space.log)
