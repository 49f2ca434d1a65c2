"""`prectr preferences show` and `check`: answers, exit codes and messages. No Ray here."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from jobs import report, simulate
from prectr.core.artifacts import StageResult, run_stage, write_json
from prectr.core.config import FrozenConfig
from prectr.data.marketplace.config import MarketplaceConfig
from tests.jobs.run_command import Prectr
from tests.mined_preferences import write_artifacts_of
from tests.prectr.evaluation_world import make_day, make_evaluation, scores


@dataclass(frozen=True)
class World:
    """A tiny simulated log and its artifacts."""

    tables: Path
    relevance: Path
    preferences: Path

    @property
    def query(self) -> str:
        """The query that has a behaviour."""
        behaviours = pl.read_parquet(self.preferences / "snapshot" / "behaviour" / "*.parquet")
        return str(behaviours["query"].item())

    def options(self) -> list[str]:
        """All three artifacts as options."""
        return [f"--{name}={path}" for name, path in vars(self).items()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("command")
    config = MarketplaceConfig(users=40, items=300, queries=20, requests=200, days=2)
    tables = simulate.run(out=root / "tables", config=config).path
    return World(tables, *write_artifacts_of(tables, root))


@pytest.fixture
def prectr(prectr: Prectr) -> Prectr:
    """`prectr preferences ...`."""
    return partial(prectr, "preferences")


def test_a_query_as_a_table_with_titles(world: World, prectr: Prectr) -> None:
    item = pl.read_parquet(world.preferences / "snapshot" / "behaviour" / "*.parquet")["item_id"].item()
    titles = pl.read_parquet(world.tables / "items.parquet")
    title = titles.filter(pl.col("item_id") == item)["title"].item()
    code, out, _ = prectr("show", world.query.upper(), *world.options())
    assert code == 0
    assert world.query in out and "Share of clicks by relevance level" in out and title[:30] in out


def test_a_query_as_json(world: World, prectr: Prectr) -> None:
    code, out, _ = prectr("show", world.query, "--json", f"--preferences={world.preferences}")
    content = json.loads(out)
    assert code == 0 and set(content) == {"query"}
    assert content["query"]["query"] == world.query
    assert [level["level"] for level in content["query"]["levels"]] == [0, 1, 2, 3]


def test_the_page_and_its_figures(world: World, prectr: Prectr, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    code, out, _ = prectr("show", "--html", file, "--json", *world.options())
    content = json.loads(out)
    assert code == 0 and set(content) == {"overview", "page"}
    assert content["page"] == str(file) and content["overview"]["simulated"]
    page = file.read_text(encoding="utf-8")
    assert "Cold start" in page and "of impressions" in page
    code, out, _ = prectr("show", "--html", file, f"--preferences={world.preferences}")
    assert code == 0 and out.strip() == str(file)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show"], 2, "Name a QUERY to show"),
        (["show", "no such thing"], 1, "Nearest known queries"),
        (["show", "--html", "nowhere/page.html"], 1, "the page cannot be written"),
    ],
    ids=["nothing asked", "unknown query", "no such folder"],
)
def test_mistakes_of_show(world: World, prectr: Prectr, arguments: list[str], code: int, message: str) -> None:
    ended, _, said = prectr(*arguments, f"--preferences={world.preferences}")
    assert ended == code
    assert message in said and "Traceback" not in said


def test_another_artifact_is_refused(world: World, prectr: Prectr, tmp_path: Path) -> None:
    code, _, said = prectr("show", "phone", f"--preferences={world.relevance}")
    assert code == 2 and "one of mine-preferences is needed" in said
    shutil.copytree(world.relevance, tmp_path / "relevance")
    manifest = json.loads((tmp_path / "relevance" / "manifest.json").read_text())
    (tmp_path / "relevance" / "manifest.json").write_text(json.dumps(manifest | {"started": "later"}))
    code, _, said = prectr(
        "show", world.query, *World(world.tables, tmp_path / "relevance", world.preferences).options()
    )
    assert code == 2 and "was mined from other relevance" in said


def test_check_as_table_and_json(world: World, prectr: Prectr) -> None:
    code, out, _ = prectr("check", *world.options())
    assert code == 0
    assert "Spearman correlation (simulated log)" in out and "1.000" in out and "Coverage by source" in out
    code, out, _ = prectr("check", "--json", *world.options())
    content = json.loads(out)
    assert code == 0 and content["simulated"] and set(content["coverage"]) == {"encoder"}
    assert content["users"]["all"][-1]["posterior"]["spearman"] == pytest.approx(1.0)


def test_check_needs_a_truth(world: World, prectr: Prectr, tmp_path: Path) -> None:
    shutil.copytree(world.tables, tmp_path / "tables")
    shutil.rmtree(tmp_path / "tables" / "truth")
    code, _, said = prectr("check", *World(tmp_path / "tables", world.relevance, world.preferences).options())
    assert code == 2 and "has no truth/ to check against" in said and "prectr simulate" in said


def _report(workspace: Path) -> StageResult:
    """The report about a workspace whose evaluation knows two models."""
    day = make_day(workspace / "judged")
    content = make_evaluation(day, {"one": [scores(day, 1, 1.0)], "two": [scores(day, 2, 1.0)]}, "two")

    def build(staging: Path) -> dict[str, object]:
        write_json(staging / "evaluation.json", content | {"simulated": True})
        return {}

    evaluation = run_stage("evaluate", workspace / "evaluation", config=FrozenConfig(), inputs={}, build=build)
    return report.run(workspace=workspace, evaluation=evaluation.path, out=workspace / "report")


def test_report_has_the_check_the_curves_and_the_coverage(world: World) -> None:
    made = _report(world.tables.parent)
    everyone = made.manifest["tolerance_check"]["users"]["all"][-1]
    assert everyone["posterior"]["spearman"] == pytest.approx(1.0)
    page = (made.path / report.PAGE).read_text(encoding="utf-8")
    assert "Mined tolerance against the truth" in page and "from: randomised slice (321 clicks)" in page
    assert f"<td>all</td><td>{everyone['keys']}</td>" in page and "1.000 [1.00, 1.00]" in page
    assert "<td>encoder</td>" in page and "<td>100.0%</td><td>100.0%</td>" in page
    assert _report(world.tables.parent).skipped


def test_report_says_that_it_does_without_a_truth_of_another_kind(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (world.tables, world.relevance, world.preferences):
        shutil.copytree(path, tmp_path / path.name)
    (tmp_path / "tables" / "truth" / "users.parquet").unlink()
    made = _report(tmp_path)
    assert made.manifest["tolerance_check"] is None
    assert "has no check of tolerances against the truth" in capsys.readouterr().err
    page = (made.path / report.PAGE).read_text(encoding="utf-8")
    assert "Mined tolerance against the truth" not in page and "Coverage by source" in page
