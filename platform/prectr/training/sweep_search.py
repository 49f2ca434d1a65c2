"""The search of a sweep: Optuna proposes trials, Ray Tune runs them, ASHA stops weak ones early."""

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prectr.core import progress
from prectr.core.ray_train import own_sigint
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SearchRange, SweepConfig
from prectr.training.sweep_trials import ITERATION, REACHED, Trial, TrialLedger, drawn_config, run_trial

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger holds the points
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command; finished trials are in the ledger
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table even with verbose=0
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
    """Run the trials that the ledger lacks to reach `config.trials`; Ray must be running.

    Args:
        folder: ledger of finished trials, whose results Optuna and ASHA start from. Ray Tune's state goes there too.
        samples: artifact of `build-samples`.
        encoder: artifact of `distill`.
        config: settings of the sweep.
        train: settings of training; a trial replaces the searched ones.
        build_ranker: function that builds a ranker, as for the training loop.

    Returns:
        All trials, failed ones last.
    """
    from ray import tune

    from prectr.training.sweep_progress import SweepProgress

    ledger = TrialLedger(folder)
    if len(finished := ledger.read()) >= config.trials:
        return finished
    _prepare()
    callback = SweepProgress(ledger, config, len(finished))
    trainable = functools.partial(
        run_trial,
        sweep=config,
        train=train,
        samples=samples.resolve(),
        encoder=encoder.resolve(),
        build_ranker=build_ranker,
    )

    @own_sigint()
    def fit(trials: int, proposals: Any) -> None:
        tune.Tuner(
            tune.with_resources(trainable, train.of_worker),
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
    # Tune restarts a trial that loses its worker while it runs, but not one that loses it while it is assigned.
    for _ in range(train.restarts):
        if proposals := callback.take_lost():
            fit(len(proposals), _repeat(config, proposals))
    return [*ledger.read(), *callback.failed]


def check_space(config: SweepConfig, train: TrainConfig) -> None:
    """Check that `train` accepts all searched settings and their bounds.

    Raises:
        UsageError: a setting does not exist or has an invalid value; the message names it.
    """
    for name, space in config.search.items():
        for value in space.bounds:
            drawn_config(train, {name: value})


def proposer(config: SweepConfig, finished: Sequence[Trial]) -> Any:
    """Optuna's search, started from the results of finished trials.

    The seed depends on the number of finished trials, because an equal seed would propose the first trials again.
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


def _repeat(config: SweepConfig, proposals: Sequence[Mapping[str, Any]]) -> Any:
    """Search that gives out earlier proposals again."""
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(_space(config), metric=REACHED, mode=config.mode, points_to_evaluate=list(proposals))


def early_stopping(config: SweepConfig, train: TrainConfig, finished: Sequence[Trial]) -> Any:
    """ASHA scheduler that knows the results of finished trials, so that its rungs are not empty."""
    from ray.tune.schedulers import ASHAScheduler

    validations = _largest(config, train, "epochs") * _largest(config, train, "evaluations_per_epoch")
    scheduler = ASHAScheduler(
        time_attr=ITERATION,
        metric=REACHED,
        mode=config.mode,
        max_t=validations,
        grace_period=min(config.grace, validations),
        reduction_factor=config.reduction,
    )
    for number, trial in enumerate(finished):
        replayed: Any = SimpleNamespace(trial_id=f"finished-{number}")
        scheduler.on_trial_add(None, replayed)
        for iteration, point in enumerate(trial.points, start=1):
            scheduler.on_trial_result(None, replayed, {ITERATION: iteration, REACHED: point[REACHED]})
    return scheduler


def _largest(config: SweepConfig, train: TrainConfig, name: str) -> int:
    """Largest value of an integer setting in the search space."""
    space = config.search.get(name)
    return int(getattr(train, name) if space is None else max(space.bounds))


def _prepare() -> None:
    """Turn off the files and output of Ray Tune and Optuna, which the ledger and our progress lines replace."""
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
