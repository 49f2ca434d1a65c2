"""The report page: what a workspace's artifacts say, on one self-contained HTML page."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prectr.artifacts import read_manifest
from prectr.reporting import pictures
from prectr.tabulate import MODEL_NAMES, QUALITY_COLUMNS
from prectr.training.launch import read_curve

STAGES = ("tables", "teacher", "labels", "encoder", "relevance", "preferences", "samples")
LEARNING_CURVE = "learning_curve.jsonl"


def render_page(workspace: Path, evaluation: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        workspace: directory with the stages' artifacts; stages that are not there are left out.
        evaluation: the content of an `evaluate` artifact.
    """
    manifests = {name: manifest for name in STAGES if (manifest := read_manifest(workspace / name)) is not None}
    rankers = {
        path.name: manifest
        for path in sorted((workspace / "rankers").glob("*"))
        if (manifest := read_manifest(path)) is not None
    }
    curves = {
        name: read_curve(file) for name in rankers if (file := workspace / "rankers" / name / LEARNING_CURVE).is_file()
    }
    drawn = {
        "models": pictures.model_bars(evaluation["models"], MODEL_NAMES),
        "curves": pictures.learning_curves(curves, MODEL_NAMES) if curves else None,
        "quality": pictures.quality_bars(evaluation["quality"]) if "lexical" in evaluation["quality"] else None,
        "tolerance": pictures.tolerance_bars(evaluation["tolerance"]) if evaluation.get("tolerance") else None,
    }
    parameters = manifests.get("preferences", {}).get("parameters")
    if parameters:
        drawn["examination"] = pictures.examination_curve(parameters["examination"]["exponent"])
        drawn["click"] = pictures.click_curve(**parameters["click"])
    times = [(manifest["stage"], manifest["wall_seconds"]) for manifest in manifests.values()]
    times += [(f"train {name}", manifest["wall_seconds"]) for name, manifest in rankers.items()]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.filters["figure"] = lambda value: "–" if value is None or value != value else f"{value:.4f}"
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        names=MODEL_NAMES,
        quality_columns=QUALITY_COLUMNS,
        pictures=drawn,
        parameters=parameters,
        times=times,
        total=sum(seconds for _, seconds in times),
        rankers=rankers,
        versions=next(iter(reversed(rankers.values())), {}).get("versions", {}),
    )
