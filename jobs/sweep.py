"""sweep: search settings of `train` with Ray Tune: Optuna proposes, ASHA stops early. It resumes trial by trial.

The artifact holds `best.yaml`, which `prectr train --config` takes, `trials.json` and a page with pictures.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import MODEL, Encoder, Force, Out, Samples, Shortcut, command
from jobs.train import EXECUTION, build_ranker_from
from prectr.core import progress
from prectr.core.artifacts import (
    StageResult,
    fingerprint,
    read_manifest,
    require_artifact,
    run_stage,
    stage_identity,
    write_json,
)
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_session import RayConfig, ray_session, require_resources
from prectr.training.config import TrainConfig
from prectr.training.start import undefined_figures
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_search import check_space, search
from prectr.training.sweep_trials import Trial, TrialLedger, drawn_config

BEST, TRIALS, PAGE = "best.yaml", "trials.json", "trials.html"
HOW = ("trials", "parallel")
"""Settings of a sweep that do not change a trial: finished trials count although these settings have changed."""


class _Searched(FrozenConfig):
    """The settings that identify a sweep."""

    sweep: SweepConfig
    train: TrainConfig


@command(
    "sweep",
    shortcuts=MODEL | {"trials": Shortcut("sweep.trials", Annotated[int | None, typer.Option(help="Trials in all.")])},
)
def run(
    *,
    samples: Samples,
    encoder: Encoder,
    out: Out,
    config: SweepConfig,
    train: TrainConfig,
    ray_config: RayConfig | None = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep that was stopped; fail without one.")
    ] = False,
    force: Force = False,
) -> StageResult:
    """Search `config.search` around `train` on `samples` and publish the best settings at `out`.

    A finished trial is never run again, neither after the driver was killed nor after `config.trials` was raised.

    Raises:
        UsageError: a searched setting does not exist, the metric is undefined on the validation day, or `resume` is
            true and there is no sweep to resume.
    """
    require_artifact(samples, "build-samples")
    require_artifact(encoder, "distill")
    check_space(config, train)
    undefined = undefined_figures(samples)
    if undefined and config.metric in undefined.figures:
        raise UsageError(f"{samples}: {undefined.why}; search by another figure with `--set sweep.metric=logloss`.")
    inputs: dict[str, Path | str] = {"samples": samples, "encoder": encoder}
    identity = _identity(config, train, inputs)
    kept = out.parent / f".{out.name}.sweep-{identity}"
    if force:
        shutil.rmtree(kept, ignore_errors=True)
    elif not kept.exists() and (read_manifest(out) or {}).get("search") == identity:
        _reuse_trials(out, kept)
    if resume and not kept.exists():
        raise UsageError(f"{out}: there is no sweep of these settings and inputs to resume; leave out --resume.")

    def build(staging: Path) -> dict[str, Any]:
        kept.mkdir(parents=True, exist_ok=True)
        if finished := TrialLedger(kept).read():
            progress.say(f"sweep: continues after {len(finished)} finished trials ({kept})")
        with ray_session(ray_config):
            require_resources("train", train.of_worker)
            trials = search(
                kept, samples=samples, encoder=encoder, config=config, train=train, build_ranker=build_ranker_from
            )
        return {"search": identity, **_write(staging, trials, config, train)}

    result = run_stage(
        "sweep", out, config=_Searched(sweep=config, train=train), inputs=inputs, build=build, force=force
    )
    shutil.rmtree(kept, ignore_errors=True)
    return result


def _identity(config: SweepConfig, train: TrainConfig, inputs: Mapping[str, Path | str]) -> str:
    """Hash of everything that a trial depends on."""
    searched = _Searched(sweep=config, train=train).model_copy(
        update={
            "sweep": config.model_copy(update=dict.fromkeys(HOW)),
            "train": train.model_copy(update=dict.fromkeys(EXECUTION)),
        }
    )
    return stage_identity("sweep", searched, {name: fingerprint(value) for name, value in inputs.items()})


def _reuse_trials(out: Path, kept: Path) -> None:
    """Start a ledger with the trials of a published sweep."""
    ledger = TrialLedger(kept)
    for trial in json.loads((out / TRIALS).read_text(encoding="utf-8"))["trials"]:
        if trial["error"] is None:
            ledger.write(Trial(**{name: trial[name] for name in Trial.__dataclass_fields__}))


def _write(staging: Path, trials: list[Trial], config: SweepConfig, train: TrainConfig) -> dict[str, Any]:
    """Write best.yaml, trials.json and the page.

    Raises:
        PrectrError: no trial finished.
    """
    import yaml

    from prectr.reports.sweep import render_sweep

    done = [trial for trial in trials if trial.error is None]
    if not done:
        raise PrectrError(f"sweep: all {len(trials)} trials failed; the first with: {trials[0].error}")
    better = min if config.mode == "min" else max
    best = better(done, key=lambda trial: trial.best)  # type: ignore[arg-type, return-value]
    execution = {name: getattr(train, name) for name in EXECUTION}
    best_config = drawn_config(train, best.settings).model_copy(update=execution)
    heading = f"# `prectr train --config` takes this: {config.metric} {best.best:.6g} on the validation day\n"
    content = yaml.safe_dump({"train": best_config.model_dump(mode="json")}, sort_keys=False)
    (staging / BEST).write_text(heading + content, encoding="utf-8")
    rows = [asdict(trial) | {"best": trial.best} for trial in trials]
    facts = {"trials": rows, "best": rows[trials.index(best)], "metric": config.metric}
    write_json(staging / TRIALS, facts)
    (staging / PAGE).write_text(render_sweep(facts, train.model.name), encoding="utf-8")
    progress.say(f"sweep: best {config.metric} {best.best:.6g} with {_short(best.settings)}")
    return {"rows": {"trials": len(trials), "failed": len(trials) - len(done)}, "best": facts["best"]}


def _short(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items()
    )
