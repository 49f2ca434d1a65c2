"""The report page: what a workspace's artifacts say, on one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prectr.artifacts import read_manifest
from prectr.preferences_report import page as preferences_page
from prectr.reporting import pictures
from prectr.reporting.drawing import templates
from prectr.tabulate import MODEL_NAMES, QUALITY_COLUMNS
from prectr.training.launch import read_curve

STAGES = ("tables", "teacher", "labels", "encoder", "relevance", "preferences", "samples")
LEARNING_CURVE = "learning_curve.jsonl"


def render_page(
    workspace: Path,
    evaluation: dict[str, Any],
    coverage: Mapping[str, Any] | None = None,
    check: Mapping[str, Any] | None = None,
) -> str:
    """The page as HTML.

    Args:
        workspace: directory with the stages' artifacts; stages that are not there are left out.
        evaluation: the content of an `evaluate` artifact.
        coverage: shares of pairs and impressions by source of relevance; None where the artifacts are not there.
        check: mined tolerances against the truth; None where there is no truth.
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
    }
    mined = manifests.get("preferences")
    times = [(manifest["stage"], manifest["wall_seconds"]) for manifest in manifests.values()]
    times += [(f"train {name}", manifest["wall_seconds"]) for name, manifest in rankers.items()]
    environment = templates(Path(__file__).parent, preferences_page.FOLDER)
    environment.filters |= preferences_page.FILTERS
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        names=MODEL_NAMES,
        quality_columns=QUALITY_COLUMNS,
        pictures=drawn,
        preferences=None
        if mined is None
        else preferences_page.section(mined["parameters"], mined["relevance_sources"], coverage, check),
        times=times,
        total=sum(seconds for _, seconds in times),
        rankers=rankers,
        versions=next(iter(reversed(rankers.values())), {}).get("versions", {}),
    )
