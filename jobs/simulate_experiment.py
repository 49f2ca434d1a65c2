"""simulate-experiment: play an online test of two rankers on the simulated marketplace.

It writes exposures and assignment as `analyze-experiment` reads them, that report, and the true effects beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.analyze_experiment import answer_of, write
from jobs.options import PATH, Force, Out, Shortcut, command
from prectr.core import progress
from prectr.core.artifacts import StageResult, fingerprint, read_manifest, require_artifact, run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError
from prectr.data.marketplace.config import MarketplaceConfig
from prectr.data.tables import Tables
from prectr.evaluation.experiments.config import PRODUCTION, ExperimentConfig, ReplayConfig
from prectr.evaluation.experiments.measures import MEASURES

AA_RESPLITS = 1000


class SimulatedExperimentConfig(FrozenConfig):
    """The settings that identify a replay."""

    replay: ReplayConfig
    experiment: ExperimentConfig


@command(
    "simulate-experiment",
    shortcuts={"days": Shortcut("replay.days", Annotated[int | None, typer.Option(help="Days after the log's last.")])},
    show=lambda result: answer_of(result, "simulate-experiment"),
)
def run(
    *,
    tables: Annotated[
        Path, typer.Option("--tables", help="Tables of simulate, on which the rankers were trained.", **PATH)
    ],
    control: Annotated[str, typer.Option("--control", help="A bundle, or production: the logging policy.")] = (
        PRODUCTION
    ),
    treatment: Annotated[str | None, typer.Option("--treatment", help="A bundle, or production.")] = None,
    out: Out,
    replay: ReplayConfig,
    experiment: ExperimentConfig,
    aa: Annotated[bool, typer.Option("--aa", help="Show the control to both halves.")] = False,
    catalogue: Annotated[
        Path | None, typer.Option("--catalogue", help="The tables that simulate --catalogue was given.", **PATH)
    ] = None,
    force: Force = False,
) -> StageResult:
    """Play the test and publish `exposures/`, `assignment.parquet`, `experiment.json` and `experiment.md` at `out`.

    Args:
        tables: of `simulate`.
        control: a bundle, or "production" for the logging policy.
        treatment: a bundle or "production"; None with `aa`.
        out: the artifact.
        replay: days, requests, shares, seed.
        experiment: settings of the analysis; control, shares and start follow from the replay.
        aa: show the control to both halves.
        catalogue: the tables that `simulate --catalogue` was given.
        force: build even if the artifact is up to date.

    Raises:
        UsageError: the tables are not simulated, a ranker is missing, or the catalogue is another one.
        PrectrError: the tables were written by another version of the marketplace.
    """
    if aa == (treatment is not None):
        raise UsageError("simulate-experiment: give --treatment RANKER, or --aa to show the control to both halves.")
    world_config, catalogue = _marketplace(tables, catalogue)
    rankers = [_ranker(name) for name in (control, treatment or control)]
    share = replay.treatment_share
    config = SimulatedExperimentConfig(
        replay=replay,
        experiment=experiment.model_copy(
            update={
                "control": "control",
                "shares": {"control": 1 - share, "treatment": share},
                "start": None,
                "max_unpriced_share": 1.0,  # the truth counts items without a price as 0 too
                "resplits": experiment.resplits or (AA_RESPLITS if aa else 0),
            }
        ),
    )

    def build(staging: Path) -> dict[str, Any]:
        return _play(staging, tables, world_config, catalogue, rankers, config)

    inputs: dict[str, Path | str] = {"tables": tables, "control": rankers[0], "treatment": rankers[1]}
    if catalogue is not None:
        inputs["catalogue"] = catalogue
    return run_stage("simulate-experiment", out, config=config, inputs=inputs, build=build, force=force)


def _play(
    staging: Path,
    tables: Path,
    world_config: MarketplaceConfig,
    catalogue: Path | None,
    rankers: list[Path | str],
    config: SimulatedExperimentConfig,
) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from prectr.data.marketplace import prepare
    from prectr.evaluation.experiments.analysis import analyse
    from prectr.evaluation.experiments.exposures import read_experiment
    from prectr.evaluation.experiments.replay import replay

    marketplace = prepare(world_config, catalogue)
    _check_same_world(tables, marketplace.items)
    sizes = marketplace.sizes
    daily = max(1, sizes.requests // sizes.days)
    total = (config.replay.requests or daily) * config.replay.days
    with progress.track("order", total=total, unit="requests") as bar:
        played = replay(marketplace.world, sizes.days, daily, rankers, config.replay, bar.advance)
    for number, day in enumerate(played.days()):
        folder = staging / "exposures" / f"date={day.date}"
        folder.mkdir(parents=True)
        pq.write_table(day.exposures, folder / f"part-{number:04d}.parquet")
    pq.write_table(played.assignment(), staging / "assignment.parquet")
    experiment = read_experiment(staging / "exposures", staging / "assignment.parquet", tables, config.experiment)
    report = {**analyse(experiment, config.experiment), "simulated": True}
    report["rankers"] = [str(ranker) for ranker in rankers]
    report["truth"] = against_truth(report, [truth.all_sums() for truth in played.truth])
    write(staging, report)
    return {"simulated": True, "rows": {"exposures": report["counts"]["rows_counted"]}}


def _marketplace(tables: Path, catalogue: Path | None) -> tuple[MarketplaceConfig, Path | None]:
    """The configuration of the simulation that made the tables, and its catalogue."""
    if not Tables(tables).simulated:
        raise UsageError(
            f"{tables}: not simulated, so there is no truth to replay; `prectr simulate` makes such tables."
        )
    manifest: Mapping[str, Any] = require_artifact(tables, "simulate")
    needed = manifest["inputs"].get("catalogue")
    if needed is None:
        return MarketplaceConfig.model_validate(manifest["config"]), None
    if catalogue is None or fingerprint(catalogue) != needed:
        raise UsageError(f"{tables}: was simulated on a catalogue; give the same tables with --catalogue.")
    return MarketplaceConfig.model_validate(manifest["config"]), catalogue


def _ranker(name: str) -> Path | str:
    if name == PRODUCTION:
        return PRODUCTION
    require_artifact(Path(name), "train")
    return Path(name)


def _check_same_world(tables: Path, items: Any) -> None:
    import pyarrow.parquet as pq

    if not pq.read_table(tables / "items.parquet").equals(items):
        version = (read_manifest(tables) or {}).get("prectr")
        raise PrectrError(
            f"{tables}: the marketplace of this version makes other items than these, of version {version}; "
            "run `prectr simulate` again, and train on its tables."
        )


def against_truth(report: Mapping[str, Any], truths: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Compute the true values of each measure, and check whether the report's intervals hold the true difference.

    Args:
        report: the report of `analyse`, with the variants control and treatment.
        truths: expected sums of control and treatment, by the names in `measures`.
    """
    comparison = {}
    for measure in MEASURES:
        if measure.name not in report["measures"]:
            continue
        control, treatment = (truth[measure.above] / truth[measure.below] for truth in truths)
        difference = treatment - control
        estimate = report["measures"][measure.name]["treatments"]["treatment"]
        intervals = {
            "fixed": estimate["bootstrap"] or estimate["delta"],
            "adjusted": estimate["adjusted"],
            "always_valid": estimate["always_valid"],
        }
        comparison[measure.name] = {
            "control": control,
            "treatment": treatment,
            "difference": difference,
            "lift": difference / control if control else float("nan"),
            "covered": {
                name: bool(interval["low"] <= difference <= interval["high"])
                for name, interval in intervals.items()
                if interval is not None
            },
        }
    return comparison
