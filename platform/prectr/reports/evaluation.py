"""Content of the evaluation report, which the page, the Markdown and the JSON share: tables, data, wall times."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prectr.core import mirror
from prectr.core.artifacts import read_manifest
from prectr.core.ray_train import read_curve
from prectr.evaluation.contestants import label_of
from prectr.reports.config import ReportConfig
from prectr.reports.terminal import FIGURE_COLUMNS, figure_rows, format_interval

LEARNING_CURVE = "learning_curve.jsonl"
SLICES = ("cold", "warm", "active", "head", "torso", "tail")
AUC_TABLE = (*((name, "auc", name) for name in SLICES), ("randomised", "auc_free", "randomised, position-free"))
GAUC_TABLE = tuple((name, "gauc", name) for name in SLICES)
LIST_TABLE = (
    ("candidates", "level_top", "mean level of the top"),
    ("candidates", "coverage", "coverage"),
    ("candidates", "judged_ndcg", "NDCG, judged"),
    ("candidates", "judged_mrr", "MRR, judged"),
)
EXPOSURE_TABLE = (
    ("exposed", "level_ndcg", "levels, exposed"),
    ("unexposed", "level_ndcg", "levels, unexposed"),
    ("exposed", "click_ndcg", "true clicks, exposed"),
    ("unexposed", "click_ndcg", "true clicks, unexposed"),
)
CALIBRATION_TABLE = (
    ("all", "logloss", "log loss"),
    ("all", "ne", "NE"),
    ("all", "ece", "ECE, RMS"),
    ("all", "predicted_over_actual", "pred./actual"),
)
ABLATION_PREFIX = "Ablations: "
"""Prefix of the titles of the ablations' tables."""
TABLES = (
    ("Rankers", (*FIGURE_COLUMNS, ("all", "gauc_request", "GAUC by request"))),
    ("Calibration", CALIBRATION_TABLE),
    ("AUC by slice", AUC_TABLE),
    ("GAUC by slice", GAUC_TABLE),
    ("Lists of candidates", LIST_TABLE),
    ("NDCG of exposed and unexposed candidates", EXPOSURE_TABLE),
)


@dataclass(frozen=True)
class StageTime:
    """One stage, or all trainings of one ranker.

    Attributes:
        name: name in tables.
        runs: number of artifacts.
        seconds: wall time of all artifacts.
        core_hours: wall hours times the cores of the machine; None if a manifest does not record the cores.
    """

    name: str
    runs: int
    seconds: float
    core_hours: float | None


def stage_times(workspace: Path) -> list[StageTime]:
    """Wall times of the stages of a workspace in the order of the pipeline, then of the rankers."""
    manifests = []
    for name in STAGES:
        if (manifest := read_manifest(workspace / name)) is not None:
            manifests.append((str(manifest["stage"]), manifest))
    for path in bundle_paths(workspace):
        manifests.append((f"train {label_of(path.name.partition(SEED_MARK)[0])}", read_manifest(path) or {}))
    times: dict[str, StageTime] = {}
    for name, manifest in manifests:
        seconds, cores = float(manifest["wall_seconds"]), manifest.get("cores")
        hours = None if cores is None else seconds / 3600 * cores
        earlier = times.get(name, StageTime(name, 0, 0.0, 0.0))
        total_hours = None if earlier.core_hours is None or hours is None else earlier.core_hours + hours
        times[name] = StageTime(name, earlier.runs + 1, earlier.seconds + seconds, total_hours)
    return list(times.values())


def bundle_paths(workspace: Path) -> list[Path]:
    """Directories of the bundles of a workspace, in order of their names."""
    return [path for path in mirror.folders(workspace / "rankers") if read_manifest(path) is not None]


@dataclass(frozen=True)
class FigureTable:
    """A table of figures as text: a heading and rows whose first cell is the model."""

    title: str
    heading: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """Content of the report.

    Attributes:
        evaluation: content of the `evaluate` artifact.
        ablation: content of the `ablate` artifact; None without one.
        coverage: shares of pairs and impressions by source of relevance; None if not known.
        check: mined tolerances against the truth; None on a real log.
        mined: manifest of `preferences`; None without this artifact.
        curves: learning curve of each ranker's first seed, by ranker.
        times: wall time of each stage.
        price: price of a core hour, and its currency.
        versions: versions of the packages that trained the last ranker.
        identities: hash of stage, version, configuration and inputs, by artifact.
    """

    evaluation: dict[str, Any]
    ablation: dict[str, Any] | None
    coverage: Mapping[str, Any] | None
    check: Mapping[str, Any] | None
    mined: dict[str, Any] | None
    curves: dict[str, list[dict[str, Any]]]
    times: list[StageTime]
    price: ReportConfig
    versions: dict[str, str]
    identities: dict[str, str]

    @classmethod
    def of(
        cls,
        workspace: Path,
        evaluation: dict[str, Any],
        ablation: dict[str, Any] | None = None,
        coverage: Mapping[str, Any] | None = None,
        check: Mapping[str, Any] | None = None,
        price: ReportConfig | None = None,
        identities: dict[str, str] | None = None,
    ) -> "Report":
        """Collect the content from a workspace. Missing stages are left out. `identities`: see `identities_of`."""
        bundles = bundle_paths(workspace)
        curves = {
            path.name: read_curve(path / LEARNING_CURVE)
            for path in bundles
            if SEED_MARK not in path.name and (path / LEARNING_CURVE).is_file()
        }
        versions = (read_manifest(bundles[-1]) or {}).get("versions", {}) if bundles else {}
        return cls(
            evaluation,
            ablation,
            coverage,
            check,
            read_manifest(workspace / "preferences"),
            curves,
            stage_times(workspace),
            price or ReportConfig(),
            versions,
            identities or {},
        )

    def tables(self) -> list[FigureTable]:
        """Tables of the rankers, then the same tables of the ablations; tables without columns are left out."""
        tables = [_table(title, self.evaluation, columns) for title, columns in TABLES]
        if self.ablation is not None:
            tables += [_table(f"{ABLATION_PREFIX}{title}", self.ablation, columns) for title, columns in TABLES]
        return [table for table in tables if len(table.heading) > 1]

    def off_policy(self) -> FigureTable | None:
        """Clicks a request by model and estimator; None without randomised requests or their propensities."""
        values = self.evaluation.get("off_policy")
        if not values or "models" not in values:
            return None
        models = values["models"]
        columns = {
            "logged": "as logged",
            "ips": "IPS",
            "snips": "SNIPS",
            "dr": "DR",
            "against_base": f"against {label_of(values['base'])}",
            "truth": "truth (simulated)",
        }
        columns = {
            name: heading for name, heading in columns.items() if any(name in figures for figures in models.values())
        }
        rows = [
            [label_of(model), *(_format_value(figures.get(name)) for name in columns)]
            for model, figures in models.items()
        ]
        return FigureTable("Off-policy value", ["clicks a request", *columns.values()], rows)

    def cost(self) -> list[list[str]]:
        """Rows of stage, runs, seconds, core hours and, with a price, cost; the last row is the sum."""
        rows = [
            [time.name, str(time.runs), f"{time.seconds:,.1f}", *self._cost(time.core_hours)] for time in self.times
        ]
        hours = [time.core_hours for time in self.times]
        total_hours = None if None in hours else sum(hour for hour in hours if hour is not None)
        runs, seconds = sum(time.runs for time in self.times), sum(time.seconds for time in self.times)
        return [*rows, ["all stages", str(runs), f"{seconds:,.1f}", *self._cost(total_hours)]]

    def cost_heading(self) -> list[str]:
        """Headings of the columns of `cost`."""
        heading = ["stage", "runs", "seconds", "core hours"]
        return heading if self.price.core_hour_price is None else [*heading, f"cost, {self.price.currency}"]

    def _cost(self, hours: float | None) -> list[str]:
        cells = ["–" if hours is None else f"{hours:.3f}"]
        if self.price.core_hour_price is not None:
            cells.append("–" if hours is None else f"{hours * self.price.core_hour_price:.2f}")
        return cells

    def learning_labels(self) -> dict[str, str]:
        """Labels of the rankers with a learning curve, by name."""
        return {name: label_of(name) for name in self.curves}

    def as_json(self) -> dict[str, Any]:
        """The whole content as a JSON object."""
        return {
            "evaluation": self.evaluation,
            "ablation": self.ablation,
            "coverage": self.coverage,
            "tolerance_check": self.check,
            "learning_curves": self.curves,
            "stages": [asdict(time) for time in self.times],
            "price": self.price.model_dump(),
            "versions": self.versions,
            "identities": self.identities,
        }


def _format_value(value: Mapping[str, Any] | float | None) -> str:
    """Format a figure with half of its interval, or a plain number."""
    return f"{value:.4f}" if isinstance(value, float) else format_interval(value)


def identities_of(evaluation: Path) -> dict[str, str]:
    """Read the identities (`prectr.core.artifacts.stage_identity`) of an evaluation and of its inputs, by name."""
    manifest = read_manifest(evaluation) or {}
    inputs = {name: str(fingerprint).split(":")[:2] for name, fingerprint in manifest.get("inputs", {}).items()}
    input_identities = {name: parts[1] for name, parts in inputs.items() if len(parts) == 2}
    return {"evaluation": str(manifest.get("identity")), **input_identities}


def verdicts(evaluation: Mapping[str, Any], part: str = "all") -> list[str]:
    """One sentence per model: better than the base, worse, or no difference shown, in AUC and GAUC."""
    base = evaluation["models"][evaluation["base"]]["label"]
    sentences = []
    for name, model in evaluation["models"].items():
        if model["kind"] == "bound" or name == evaluation["base"]:
            continue
        parts = []
        for metric in ("auc", "gauc"):
            figure = evaluation["figures"][part][metric].get(name)
            difference = figure and figure["difference"]
            if not difference or difference["value"] is None:
                continue
            words = {"better": "better", "worse": "worse", "no difference": "no difference shown"}
            parts.append(
                f"{metric.upper()} {difference['value']:+.4f} ({words.get(difference['verdict'], 'undefined')})"
            )
        if parts:
            sentences.append(f"{model['label']} against {base}: {', '.join(parts)}.")
    return sentences


def _table(title: str, evaluation: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> FigureTable:
    heading, *rows = figure_rows(evaluation, columns)
    return FigureTable(title, heading, rows)


STAGES = ("tables", "teacher", "labels-selection", "labels", "encoder", "relevance", "preferences", "samples")
SEED_MARK = ".seed-"
"""Separates the ranker's name and the seed in the names of bundles of further seeds."""
