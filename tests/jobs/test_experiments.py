"""The commands of experiments on a tiny marketplace, without a bundle and without Ray; test_pipeline has bundles."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from jobs import simulate
from prectr.data.marketplace.config import MarketplaceConfig
from tests.jobs.run_command import Prectr


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = MarketplaceConfig(users=600, items=400, queries=30, requests=3000, days=3)
    return simulate.run(out=tmp_path_factory.mktemp("log") / "tables", config=config).path


@pytest.fixture
def played(prectr: Prectr, tables: Path, tmp_path: Path) -> Path:
    """An A/A test of the logging policy."""
    out = tmp_path / "aa"
    code, output, errors = prectr("simulate-experiment", "--tables", tables, "--aa", "--days", 2, "--out", out)
    assert code == 0, errors
    assert "simulated" in output and "the online test and the truth" in output
    assert "False positives in 1,000 random re-assignments" in output
    return out


def test_an_aa_test_is_truly_nothing_and_says_how_often_it_errs(played: Path) -> None:
    report = json.loads((played / "experiment.json").read_text(encoding="utf-8"))
    assert report["simulated"] and report["rankers"] == ["production", "production"]
    for truth in report["truth"].values():
        assert truth["difference"] == 0.0 and truth["control"] > 0
    assert report["resplits"]["measures"]["ctr"]["by_users"] == pytest.approx(0.05, abs=0.03)
    assert report["cuped"], "the log is the time before"
    assert (played / "experiment.md").read_text(encoding="utf-8").startswith("# Experiment")


def test_what_was_played_can_be_analysed_as_any_log(prectr: Prectr, played: Path, tables: Path, tmp_path: Path) -> None:
    command = ("analyze-experiment", "--exposures", played / "exposures", "--assignment", played / "assignment.parquet")
    settings = ("--set", "experiment.max_unpriced_share=1", "--out", tmp_path / "analysed")
    code, output, errors = prectr(*command, "--before", tables, *settings, "--json")
    assert code == 0, errors
    told = json.loads(output)
    report = json.loads((played / "experiment.json").read_text(encoding="utf-8"))
    assert told["simulated"]
    for name in ("measures", "days", "counts", "sample_ratio"):
        assert told[name] == report[name], name
    code, output, errors = prectr(*command, "--before", tables, *settings)
    assert code == 0 and "up to date, skipped" in errors
    assert "always valid" in output and "Sample ratio: as intended" in output
    assert f"{told['counts']['rows_counted']:,}" in " ".join(output.split())


def test_mistakes_end_with_two_and_say_what_to_do(prectr: Prectr, tables: Path, tmp_path: Path) -> None:
    play = ("simulate-experiment", "--out", tmp_path / "out")
    real = tmp_path / "real"
    shutil.copytree(tables, real)
    manifest = json.loads((real / "manifest.json").read_text(encoding="utf-8"))
    (real / "manifest.json").write_text(
        json.dumps(manifest | {"stage": "validate", "simulated": False}), encoding="utf-8"
    )
    for arguments, message in (
        ((*play, "--tables", tables), "give --treatment RANKER, or --aa"),
        ((*play, "--tables", tables, "--treatment", "production", "--aa"), "give --treatment RANKER, or --aa"),
        ((*play, "--tables", real, "--aa"), "not simulated, so there is no truth"),
        ((*play, "--tables", tables, "--treatment", tmp_path / "none"), "`prectr train"),
        (
            (
                "analyze-experiment",
                "--exposures",
                tables,
                "--assignment",
                tmp_path / "none.csv",
                "--out",
                tmp_path / "o",
            ),
            "none.csv: no such file",
        ),
    ):
        code, output, errors = prectr(*arguments)
        assert (code, output) == (2, "") and message in errors, errors
        assert "Traceback" not in errors and not (tmp_path / "out").exists()


def test_tables_of_another_marketplace_are_refused(prectr: Prectr, tables: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(tables, changed)
    items = pl.read_parquet(changed / "items.parquet")
    items.with_columns(title=pl.lit("a phone")).write_parquet(changed / "items.parquet")
    code, _, errors = prectr("simulate-experiment", "--tables", changed, "--aa", "--out", tmp_path / "out")
    assert code == 1 and "makes other items than these" in errors
    assert not (tmp_path / "out").exists()
