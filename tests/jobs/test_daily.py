"""A log that grows by a day: what is kept, what is new, and what is served afterwards. The teacher is transformers'."""

import json
import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs import mine_preferences
from jobs.pipeline import pipeline
from jobs.pipeline.config import PipelineConfig
from jobs.pipeline.daily import Daily
from jobs.pipeline.rollout import CURRENT, NEXT, read_models
from jobs.settings import Settings
from prectr.core.artifacts import read_manifest
from prectr.core.errors import UsageError
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables
from prectr.labelling.selection import SELECTION
from prectr.ranking.bundle import Bundle
from prectr.serving.states import LmdbState, require_readable
from tests.jobs.demo_run import STAGES, Ran

QUESTIONS = 20


@dataclass(frozen=True)
class Grown:
    """A workspace after a daily run, and what it was before."""

    root: Path
    settings: Settings
    before: dict[str, dict[str, Any]]
    selected: pl.DataFrame
    taken: Daily

    def manifest(self, stage: str) -> dict[str, Any]:
        """Of an artifact in the workspace."""
        found = read_manifest(self.root / "ws" / stage)
        assert found is not None
        return found

    @property
    def first(self) -> Bundle:
        """What was served before."""
        return Bundle.open(self.root / "ws" / "rankers" / "prectr-v2")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, ran: Ran) -> Grown:
    root = tmp_path_factory.mktemp("daily")
    shutil.copytree(ran.workspace, root / "ws")
    shutil.copytree(ran.workspace / "tables", root / "log", ignore=shutil.ignore_patterns("truth", "manifest.json"))
    # As if the days before had come the same way: validated, and mined from what that writes.
    validate_tables(root / "log", root / "ws" / "tables", ran.settings.validation)
    mine_preferences.run(
        tables=root / "ws" / "tables",
        relevance=root / "ws" / "relevance",
        out=root / "ws" / "preferences",
        config=ran.settings.preferences,
    )
    _add_a_day(root / "log", max(Tables(ran.workspace / "tables").days()))
    before = {stage: manifest for stage in STAGES if (manifest := read_manifest(root / "ws" / stage)) is not None}
    selected = pl.read_parquet(root / "ws" / "labels-selection" / SELECTION)
    config = PipelineConfig.model_validate(
        {
            "workspace": root / "ws",
            "source": root / "log",
            "publish": str(root / "published"),
            "daily": {"margin": 1.0, "questions": QUESTIONS, "ramp": [0.1, 0.5]},
        }
    )
    label = ran.settings.label.model_copy(update={"engine": "transformers"})
    settings = ran.settings.model_copy(update={"pipeline": config, "label": label})
    return Grown(root, settings, before, selected, pipeline.run_daily(config, settings, restart=True))


def _add_a_day(log: Path, last: date) -> None:
    """The last day once more, a day later; half of its requests ask for something that nobody asked for before."""
    for table in ("impressions", "candidates"):
        target = log / table / f"date={last + timedelta(days=1)}"
        target.mkdir()
        for file in (log / table / f"date={last}").glob("*.parquet"):
            rows = pl.read_parquet(file)
            other = pl.col("request_id").hash(seed=1) % 2 == 0
            moved = rows.with_columns(
                pl.col("ts") + timedelta(days=1),
                pl.col("request_id") + "-later",
                query=pl.when(other).then(pl.col("query") + " new").otherwise(pl.col("query")),
            )
            moved.write_parquet(target / file.name)


def test_what_was_done_for_earlier_days_is_kept(grown: Grown) -> None:
    for stage in ("teacher", "encoder"):
        assert grown.manifest(stage) == grown.before[stage]
    days = grown.manifest("preferences")["days"]
    assert days["mined"] == [str(grown.taken.decision.day)] and len(days["kept"]) == 5
    assert grown.manifest("preferences")["parameters"] == grown.before["preferences"]["parameters"]


def test_only_questions_about_new_pairs_are_asked(grown: Grown) -> None:
    now = pl.read_parquet(grown.root / "ws" / "labels-selection" / SELECTION)
    pairs = ["query", "item_id"]
    assert grown.selected.join(now, on=pairs, how="anti").is_empty()
    new = now.join(grown.selected, on=pairs, how="anti")
    assert 0 < new["question"].n_unique() <= QUESTIONS and new["query"].str.ends_with(" new").all()
    asked = grown.manifest("labels")["rows"]
    assert asked["asked"] <= QUESTIONS and asked["from_ledger"] == grown.selected["question"].n_unique()


def test_the_model_goes_on_from_the_one_served_on_days_that_were_new_to_it(grown: Grown) -> None:
    decision, first = grown.taken.decision, grown.first
    new, trained = Bundle.open(decision.ranker), read_manifest(decision.ranker)
    assert trained is not None and trained["config"]["start_from"] == str(first.path)
    assert trained["config"]["epochs"] == 1
    shares = grown.manifest("samples")["days"]
    learnt = [day for day in sorted(shares)[:-2] if day >= grown.before["rankers/prectr-v2"]["last_day"]]
    assert trained["rows"]["training"] == sum(shares[day] for day in learnt)
    assert new.state_identity == first.state_identity, "one published state serves both"
    state = LmdbState(grown.root / "published")
    for bundle in (first, new):
        require_readable(state, bundle, str(grown.root / "published"))
    state.close()


def test_what_is_not_worse_is_served_to_the_first_share(grown: Grown) -> None:
    decision = grown.taken.decision
    assert decision.carried_out and decision.outcome == ("rejected" if decision.judged.worse else "started")
    served = read_models(grown.root / "ws" / "models.yaml")
    assert served is not None and served.bundles[CURRENT] == grown.first.path
    if not decision.judged.worse:
        assert served.experiment.shares == {NEXT: 0.1} and served.bundles[NEXT] == decision.ranker


def test_a_day_is_decided_once_and_a_killed_decision_is_carried_out(grown: Grown) -> None:
    config = grown.settings.pipeline
    assert pipeline.run_daily(config, grown.settings).decision == grown.taken.decision
    (decided,) = (grown.root / "ws" / "reports").glob("daily-*.json")
    content = json.loads(decided.read_text())
    decided.write_text(json.dumps(content | {"carried_out": False}))
    (grown.root / "ws" / "models.yaml").unlink()
    again = pipeline.run_daily(config, grown.settings)
    assert again.decision == grown.taken.decision
    assert read_models(grown.root / "ws" / "models.yaml") == again.decision.models


def test_a_daily_run_needs_a_source_and_a_finished_pipeline(tmp_path: Path) -> None:
    settings = Settings()
    config = settings.pipeline.model_copy(update={"workspace": tmp_path})
    with pytest.raises(UsageError, match=r"set pipeline\.source"):
        pipeline.run_daily(config, settings)
    with pytest.raises(UsageError, match="no distill artifact here"):
        pipeline.run_daily(config.model_copy(update={"source": tmp_path}), settings, restart=True)
    assert {file.name for file in tmp_path.iterdir()} <= {pipeline.STATE, pipeline.LOCK}
