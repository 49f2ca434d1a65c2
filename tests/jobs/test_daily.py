"""A log that grows by a day: what is kept, what is new, and what is served afterwards. The teacher is transformers'."""

import json
import shutil
from pathlib import Path

import pytest

from jobs import pipeline
from prectr.artifacts import read_manifest
from prectr.bundle import Bundle
from prectr.configuration import load_config
from prectr.errors import UsageError
from prectr.labelling.selection import read_selection
from prectr.online.states import LmdbState, require_readable
from prectr.rollout import CURRENT, NEXT, read_models
from prectr.settings import Settings
from tests.jobs.test_pipeline import TINY

pytestmark = pytest.mark.slow

OVERRIDES = """
label: {engine: transformers}
samples: {profile_columns: [device]}
pipeline:
  workspace: %s
  source: %s
  rankers: [prectr-v2]
  publish: %s
  daily: {margin: 1.0, questions: 20, ramp: [0.1, 0.5]}
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> tuple[Path, Settings, list[Path]]:
    """A workspace after a full run on all days but two, its settings, and the folders of those two."""
    from jobs import simulate

    root = tmp_path_factory.mktemp("daily")
    merged = _merged(TINY, OVERRIDES % (root / "ws", root / "log", root / "published"))
    (root / "settings.yaml").write_text(merged, encoding="utf-8")
    settings = load_config(Settings, root / "settings.yaml")
    simulate.run(out=root / "all", config=settings.simulate.model_copy(update={"days": 6, "requests": 600}))
    shutil.copytree(root / "all", root / "log", ignore=shutil.ignore_patterns("truth", "manifest.json", "candidates"))
    days = sorted((root / "log" / "impressions").glob("date=*"))
    kept = []
    for day in days[-2:]:
        kept.append(root / day.name)
        shutil.move(day, kept[-1])
    pipeline.run(settings.pipeline, settings)
    return root, settings, kept


def _merged(base: str, over: str) -> str:
    import yaml

    content = yaml.safe_load(base)
    for section, values in yaml.safe_load(over).items():
        content[section] = {**content.get(section, {}), **values}
    return str(yaml.safe_dump(content))


def test_a_new_day_is_learnt_judged_and_let_in_step_by_step(grown: tuple[Path, Settings, list[Path]]) -> None:
    root, settings, days = grown
    workspace, first = root / "ws", Bundle.open(root / "ws" / "rankers" / "prectr-v2")
    selected = read_selection(workspace / "labels-selection", workspace / "tables")
    before = {stage: _started(workspace / stage) for stage in ("teacher", "encoder")}

    _add(days[0], root)
    taken = pipeline.run_daily(settings.pipeline, settings)
    name = days[0].name.removeprefix("date=")
    assert taken.decision.outcome in ("enters", "is worse") and str(taken.decision.day) == name
    assert {stage: _started(workspace / stage) for stage in before} == before, "teacher and encoder are kept"
    mined = read_manifest(workspace / "preferences")
    assert mined is not None and name in mined["days"]["mined"] and len(mined["days"]["kept"]) >= 1
    again = read_selection(workspace / "labels-selection", workspace / "tables")
    asked = again.join(selected, on=["query", "item_id"], how="anti")
    assert len(again) == len(selected) + len(asked) and 0 < asked["question"].n_unique() <= 20
    labelled = read_manifest(workspace / "labels")
    assert labelled is not None and labelled["rows"]["from_ledger"] >= selected["question"].n_unique() - 1

    new = Bundle.open(taken.decision.ranker)
    trained = read_manifest(new.path)
    assert trained is not None and trained["config"]["start_from"] == str(first.path)
    samples = read_manifest(workspace / "samples")
    assert samples is not None
    learnt = trained["rows"]["training"]
    assert 0 < learnt < sum(samples["days"].values()) / 2, "only days that were new to it"
    assert new.state_identity == first.state_identity, "one online state serves both"
    _check_served(root, taken.decision.outcome, first, new)

    repeated = pipeline.run_daily(settings.pipeline, settings)
    assert repeated.decision == taken.decision, "a day is decided once"

    _add(days[1], root)
    second = pipeline.run_daily(settings.pipeline, settings)
    served = read_models(workspace / "models.yaml")
    assert served is not None and str(second.decision.day) > str(taken.decision.day)
    if taken.decision.outcome == "enters" and second.decision.outcome == "ramps":
        assert served.experiment.shares == {NEXT: 0.5} and served.bundles[NEXT] == second.decision.ranker.absolute()
        started = read_manifest(second.decision.ranker)
        assert started is not None and started["config"]["start_from"] == str(new.path), "it goes on from what ramps"


def _check_served(root: Path, outcome: str, first: Bundle, new: Bundle) -> None:
    served = read_models(root / "ws" / "models.yaml")
    assert served is not None and served.bundles[CURRENT] == first.path.absolute()
    if outcome == "enters":
        assert served.experiment.shares == {NEXT: 0.1} and served.bundles[NEXT] == new.path.absolute()
    state = LmdbState(root / "published")
    for bundle in (first, new):
        require_readable(state, bundle, str(root / "published"))
    state.close()


def _add(day: Path, root: Path) -> None:
    shutil.copytree(day, root / "log" / "impressions" / day.name)


def _started(artifact: Path) -> str:
    manifest = read_manifest(artifact)
    assert manifest is not None
    return str(manifest["started"])


def test_a_killed_decision_is_carried_out_by_the_next_run(grown: tuple[Path, Settings, list[Path]]) -> None:
    root, settings, _ = grown
    decided = max((root / "ws" / "reports").glob("daily-*.json"))
    content = json.loads(decided.read_text())
    assert content["carried_out"] is True
    decided.write_text(json.dumps(content | {"carried_out": False}))
    (root / "ws" / "models.yaml").unlink()
    taken = pipeline.run_daily(settings.pipeline, settings)
    assert read_models(root / "ws" / "models.yaml") == taken.decision.models
    assert json.loads(decided.read_text())["carried_out"] is True


def test_a_daily_run_needs_a_source_and_a_ranker(tmp_path: Path) -> None:
    settings = Settings()
    config = settings.pipeline.model_copy(update={"workspace": tmp_path})
    with pytest.raises(UsageError, match=r"set pipeline\.source"):
        pipeline.run_daily(config, settings)
    with pytest.raises(UsageError, match="no distill artifact here"):
        pipeline.run_daily(config.model_copy(update={"source": tmp_path}), settings, restart=True)
    assert {file.name for file in tmp_path.iterdir()} <= {pipeline.STATE, pipeline.LOCK}
