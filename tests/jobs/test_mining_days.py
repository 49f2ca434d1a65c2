"""mine-preferences over time: a new day costs one day's work, a corrected one is mined alone, and damage is named.

One tiny log of five days; every test mines a copy of it, linked.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs import build_samples, mine_preferences, simulate
from prectr.core.artifacts import StageResult, run_stage, write_json
from prectr.core.errors import PrectrError
from prectr.core.parquet import read_table
from prectr.data.marketplace import MarketplaceConfig
from prectr.data.tables import Tables, distinct_pairs
from prectr.features.config import SamplesConfig
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.sums import LEVEL_NAMES
from prectr.preferences.tolerance import LATTICE
from prectr.relevance.config import ScoreConfig
from prectr.relevance.sources import level_weights

FIRST, *_, LAST = DAYS = [date(2025, 3, 3 + number) for number in range(5)]
COUNTS = [name for name in LEVEL_NAMES if name.startswith(("impressions", "clicks"))]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """Tables, a relevance artifact (a hash for a model), and preferences of all days, from scratch."""
    root = tmp_path_factory.mktemp("days")
    config = MarketplaceConfig(users=60, items=300, queries=20, requests=1500, days=5, requests_per_file=150)
    simulate.run(out=root / "tables", config=config)
    _score(root / "tables", root / "relevance")
    mine(root, root / "fitted")
    mine(root, root / "preferences", parameters_from=str(root / "fitted"))
    return root


def _score(tables: Path, out: Path, moved: tuple[str, str] = ("", ""), rounding: float = 0.0) -> None:
    """A relevance artifact of all pairs of the log and the candidates.

    The pair `moved` got a label since; with `rounding`, every fourth pair lies so far beside a border of the lattice.
    """

    def build(staging: Path) -> dict[str, Any]:
        pairs = distinct_pairs(Tables(tables)).select("query", "item_id").with_row_index("pair")
        pairs = pairs.with_columns(pl.col("pair").cast(pl.Int32))
        expected = (pairs.select(pl.struct("query", "item_id").hash(seed=1)).to_series() % 1000).to_numpy() / 999
        if rounding:
            border = (np.floor(expected * LATTICE) + 0.5) / LATTICE
            expected = np.where(np.arange(len(expected)) % 4 == 0, border + rounding, expected)
        is_moved = (pairs["query"] == moved[0]) & (pairs["item_id"] == moved[1])
        expected = np.where(is_moved.to_numpy(), 1 - expected, expected)
        levels = np.where(np.arange(4) == np.rint(expected * 3)[:, None], 0.7, 0.1).astype(np.float32)
        tokens = {"input_ids": pl.lit([2, 7, 3, 8, 3], pl.List(pl.Int32)), "query_tokens": pl.lit(3, pl.Int16)}
        (staging / "pairs").mkdir()
        pairs.with_columns(
            *(pl.Series(f"level_{level}", levels[:, level]) for level in range(4)),
            pl.Series("expected", expected.astype(np.float32)),
            pl.Series("encoder_expected", expected.astype(np.float32)),
            source=pl.when(pl.Series(is_moved)).then(pl.lit("teacher")).otherwise(pl.lit("encoder")),
            match_phrase=pl.lit(0.5),
            **tokens,
        ).write_parquet(staging / "pairs" / "part-0.parquet")
        return {"level_weights": level_weights({})}

    run_stage("score-relevance", out, config=ScoreConfig(), inputs={"tables": tables}, build=build)


def copied(log: Path, to: Path, days: list[date] = DAYS) -> Path:
    """The log with some of its days, and its relevance; files are copied, so that a test may change them."""
    shutil.copytree(log / "tables", to / "tables", ignore=shutil.ignore_patterns("truth", "candidates"))
    for day in DAYS:
        if day not in days:
            shutil.rmtree(to / "tables" / "impressions" / f"date={day}")
    shutil.copytree(log / "relevance", to / "relevance")
    return to


def mine(root: Path, out: Path, force: bool = False, **settings: Any) -> StageResult:
    config = PreferencesConfig(holdout_days=1, half_life_days=2.0, **settings)
    return mine_preferences.run(
        tables=root / "tables", relevance=root / "relevance", out=out, config=config, force=force
    )


def content(artifact: Path) -> dict[str, bytes]:
    """Every file of an artifact but those that tell when and how it was made."""
    files = sorted(file for file in artifact.rglob("*") if file.is_file() and file.suffix != ".json")
    return {str(file.relative_to(artifact)): file.read_bytes() for file in files}


def day_file(root: Path, day: date, number: int = 0) -> Path:
    return root / "tables" / "impressions" / f"date={day}" / f"part-{number:04d}.parquet"


def correct(file: Path) -> None:
    """A third of the requests should not have been there."""
    rows = pl.read_parquet(file)
    rows.filter(pl.col("request_id").hash(seed=3) % 3 != 0).write_parquet(file)


def test_a_new_day_costs_one_days_work_and_changes_no_bit(log: Path, tmp_path: Path) -> None:
    root, out, given = (
        copied(log, tmp_path, DAYS[:-1]),
        tmp_path / "preferences",
        {"parameters_from": str(log / "fitted")},
    )
    first = mine(root, out, **given)
    assert first.manifest["days"]["kept"] == []
    mined = {day: (out / "days" / f"date={day}" / "user" / "part-0000.parquet").stat().st_ino for day in DAYS[:-1]}
    shutil.copytree(day_file(log, LAST).parent, day_file(root, LAST).parent)
    second = mine(root, out, **given)
    assert second.manifest["days"] == {"mined": [str(LAST)], "kept": [str(day) for day in DAYS[:-1]]}
    assert second.manifest["stale_corrections"] == []
    for day, number in mined.items():
        assert (out / "days" / f"date={day}" / "user" / "part-0000.parquet").stat().st_ino == number, "linked"
    assert content(out) == content(log / "preferences")


def test_parameters_are_kept_until_they_are_to_be_fitted_anew(log: Path, tmp_path: Path) -> None:
    root, out = copied(log, tmp_path, DAYS[:-1]), tmp_path / "preferences"
    first = mine(root, out)
    shutil.copytree(day_file(log, LAST).parent, day_file(root, LAST).parent)
    second = mine(root, out)
    assert second.manifest["parameters"] == first.manifest["parameters"]
    assert second.manifest["fitted_on"] == [str(day) for day in DAYS[:3]]
    third = mine(root, out, force=True)
    assert third.manifest["fitted_on"] == [str(day) for day in DAYS[:4]] and third.manifest["days"]["kept"] == []


def test_days_of_another_schema_version_are_mined_again(log: Path, tmp_path: Path) -> None:
    root, out, given = (
        copied(log, tmp_path, DAYS[:2]),
        tmp_path / "preferences",
        {"parameters_from": str(log / "fitted")},
    )
    first = mine(root, out, **given)
    write_json(out / "manifest.json", first.manifest | {"schema": 0})
    shutil.copytree(day_file(log, DAYS[2]).parent, day_file(root, DAYS[2]).parent)
    assert mine(root, out, **given).manifest["days"] == {"mined": [str(day) for day in DAYS[:3]], "kept": []}


def test_a_corrected_day_is_mined_alone(log: Path, tmp_path: Path) -> None:
    root, out, given = copied(log, tmp_path), tmp_path / "preferences", {"parameters_from": str(log / "fitted")}
    mine(root, out, **given)
    correct(day_file(root, DAYS[1]))
    alone = mine(root, out, **given)
    assert alone.manifest["days"]["mined"] == [str(DAYS[1])]
    later = [str(day) for day in DAYS[2:]]
    assert alone.manifest["stale_corrections"] == later
    anew = tmp_path / "anew"
    mine(root, anew, **given)
    one, two = (read_table(path / "snapshot" / "query") for path in (out, anew))
    assert one.select("query", *COUNTS).equals(two.select("query", *COUNTS)), "what was counted is exact"
    np.testing.assert_allclose(one["tolerance"], two["tolerance"], atol=0.03)
    assert not one.equals(two), "the days after it keep the corrections of when they were mined"

    renewed = mine(root, out, late_days="renew", **given)
    assert renewed.manifest["renewed_corrections"] == later and renewed.manifest["stale_corrections"] == []
    assert content(out) == content(anew)


def test_a_late_day_is_put_in_its_place(log: Path, tmp_path: Path) -> None:
    days = [day for day in DAYS if day != DAYS[2]]
    root, out, given = copied(log, tmp_path, days), tmp_path / "preferences", {"parameters_from": str(log / "fitted")}
    mine(root, out, **given)
    shutil.copytree(day_file(log, DAYS[2]).parent, day_file(root, DAYS[2]).parent)
    late = mine(root, out, late_days="renew", **given)
    assert late.manifest["days"]["mined"] == [str(DAYS[2])]
    assert late.manifest["renewed_corrections"] == [str(day) for day in DAYS[3:]]
    assert content(out) == content(log / "preferences")


def test_days_whose_pairs_have_another_relevance_are_mined_anew(log: Path, tmp_path: Path) -> None:
    """A day that is taken away from the log leaves the relevance of the others as it was; a new label does not."""
    root, out, given = copied(log, tmp_path), tmp_path / "preferences", {"parameters_from": str(log / "fitted")}
    mine(root, out, **given)
    shown = Tables(root / "tables").impressions(columns=["query", "item_id"])
    days = shown.group_by("query", "item_id").agg(pl.col("date").unique().sort())
    query, item, dates = days.filter(pl.col("date").list.len() == 2).sort("query", "item_id").row(0)
    affected = [str(day) for day in dates]
    shutil.rmtree(root / "relevance")
    _score(root / "tables", root / "relevance", moved=(query, item))
    again = mine(root, out, **given)
    assert again.manifest["days"]["mined"] == affected


def test_a_relevance_that_another_processor_rounded_leaves_all_days_as_they_are(log: Path, tmp_path: Path) -> None:
    """The same encoder and texts; a quarter of the pairs falls to the other side of a border of the lattice."""
    root, out, given = copied(log, tmp_path), tmp_path / "preferences", {"parameters_from": str(log / "fitted")}
    mined, steps = [], []
    for rounding in (-1e-6, 1e-6):
        shutil.rmtree(root / "relevance")
        _score(root / "tables", root / "relevance", rounding=rounding)
        steps.append(PairIndex.open(root / "relevance").expected)
        mined.append(mine(root, out, **given).manifest["days"]["mined"])
    assert (steps[0] != steps[1]).mean() > 0.2
    assert mined == [[str(day) for day in DAYS], []]


def test_nothing_is_published_of_a_log_with_a_damaged_file(log: Path, tmp_path: Path) -> None:
    root, out = copied(log, tmp_path), tmp_path / "preferences"
    file = day_file(root, DAYS[2], 1)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[200:600] = bytes(400)  # inside of a page: the footer is sound
    file.write_bytes(damaged)
    with pytest.raises(PrectrError, match=r"part-0001\.parquet: cannot be read as Parquet .*run the command again"):
        mine(root, out)
    assert not out.exists()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrectrError, match=r"part-0001\.parquet: cannot be read as Parquet .*run the command again"):
        mine(root, out)
    file.write_bytes(whole)
    mine(root, out, parameters_from=str(log / "fitted"))
    assert content(out) == content(log / "preferences")


@pytest.mark.parametrize("column", ["user_id", "query", "clicked"])
def test_null_keys_are_named(log: Path, tmp_path: Path, column: str) -> None:
    root = copied(log, tmp_path)
    file = day_file(root, DAYS[1])
    rows = pl.read_parquet(file)
    rows.with_columns(pl.when(pl.int_range(pl.len()) > 2).then(column).alias(column)).write_parquet(file)
    wanted = rf"part-0000\.parquet: column '{column}' is null in 3 of {rows.height:,} rows.*prectr validate"
    with pytest.raises(PrectrError, match=wanted):
        mine(root, tmp_path / "preferences")


def test_a_clock_that_goes_backwards_is_named(log: Path, tmp_path: Path) -> None:
    root = copied(log, tmp_path)
    file = day_file(root, DAYS[3])
    rows = pl.read_parquet(file)
    back = pl.when(pl.int_range(pl.len()) == 5).then(pl.col("ts").dt.offset_by("-2d")).otherwise("ts")
    rows.with_columns(back.alias("ts")).write_parquet(file)
    with pytest.raises(PrectrError, match=rf"column 'ts' runs from 2025-03-04 .* the file lies in date={DAYS[3]}"):
        mine(root, tmp_path / "preferences")


def test_moments_out_of_order_are_no_fault(log: Path, tmp_path: Path) -> None:
    """Inside a day, a log need not be sorted."""
    root, out = copied(log, tmp_path), tmp_path / "preferences"
    file = day_file(root, DAYS[3])
    pl.read_parquet(file).sample(fraction=1, shuffle=True, seed=1).write_parquet(file)
    mine(root, out, parameters_from=str(log / "fitted"))
    assert content(out) == content(log / "preferences")


def test_the_same_day_twice_is_refused(log: Path, tmp_path: Path) -> None:
    root = copied(log, tmp_path)
    twin = day_file(root, DAYS[1]).with_name("part-9999.parquet")
    shutil.copy(day_file(root, DAYS[1]), twin)
    message = r"part-9999\.parquet: has the same content as part-0000\.parquet of the same day"
    with pytest.raises(PrectrError, match=message):
        mine(root, tmp_path / "preferences")
    pl.read_parquet(twin).sample(fraction=1, shuffle=True, seed=1).write_parquet(twin)
    with pytest.raises(
        PrectrError, match=r"impressions \(request_id, item_id\) occur more than once; the log may hold the day"
    ):
        mine(root, tmp_path / "preferences")
    assert not (tmp_path / "preferences").exists()


def test_a_day_without_rows_is_passed_over(log: Path, tmp_path: Path) -> None:
    root, out = copied(log, tmp_path), tmp_path / "preferences"
    empty = day_file(root, date(2025, 3, 8))
    empty.parent.mkdir()
    pl.read_parquet(day_file(root, LAST)).clear().write_parquet(empty)
    mine(root, out, parameters_from=str(log / "fitted"))
    assert content(out) == content(log / "preferences")


def test_a_query_of_ten_kilobytes_and_one_with_a_third_of_the_log(log: Path, tmp_path: Path) -> None:
    """All through mining and sampling; the counts are those of a plain group-by."""
    root, out = copied(log, tmp_path), tmp_path / "preferences"
    long, head = "sofa " * 2048, None
    for day in DAYS:
        for file in sorted(day_file(root, day).parent.iterdir()):
            rows = pl.read_parquet(file)
            head = head or rows["query"][0]
            number = pl.col("request_id").hash(seed=2) % 10
            query = pl.when(number < 3).then(pl.lit(head)).when(number == 9).then(pl.lit(long)).otherwise("query")
            rows.with_columns(query.alias("query")).write_parquet(file)
    shutil.rmtree(root / "relevance")
    _score(root / "tables", root / "relevance")
    mine(root, out)
    build_samples.run(
        tables=root / "tables",
        relevance=root / "relevance",
        preferences=out,
        out=tmp_path / "samples",
        config=SamplesConfig(),
    )
    logged = Tables(root / "tables").impressions(columns=["query", "item_id"]).group_by("query", "item_id").len()
    days = pl.read_parquet(out / "days" / "*" / "pair" / "*.parquet", hive_partitioning=False)
    mined = days.group_by("query", "item_id").agg(pl.col("impressions").sum())
    both = logged.join(mined, on=["query", "item_id"], how="full")
    assert (both["len"] == both["impressions"]).all()
    assert logged.filter(pl.col("query") == long.strip())["len"].sum() > 0.05 * logged["len"].sum()
    assert logged.group_by("query").agg(pl.col("len").sum())["len"].max() > 0.28 * logged["len"].sum()
    rows = pl.read_parquet(tmp_path / "samples" / "rows" / "*" / "*.parquet", hive_partitioning=False)
    assert rows.height == logged["len"].sum()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB, where this process may make one."""
    disk, mount = tmp_path / "disk", shutil.which("mount")
    disk.mkdir()
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=600k", "prectr-test", str(disk)], check=False)
    if not made or made.returncode:
        pytest.skip("cannot mount a small tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(log: Path, small_disk: Path) -> None:
    """The tasks' partials fill it, in other processes than the one that tells."""
    with pytest.raises(PrectrError, match=r"preferences: the disk is full, so mine-preferences was stopped"):
        mine(log, small_disk / "preferences", parameters_from=str(log / "fitted"))
    assert list(small_disk.iterdir()) == []


def _killed(command: list[str], after: float) -> None:
    """Start a job in a process of its own and kill it, so that nothing of it can clean up."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(after)
    started.send_signal(signal.SIGKILL)
    started.wait()


@pytest.mark.parametrize("after", [3.0, 6.0, 8.5])
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(log: Path, tmp_path: Path, after: float) -> None:
    root, out = copied(log, tmp_path), tmp_path / "preferences"
    _killed(
        [
            "jobs", "mine-preferences", "--tables", str(root / "tables"), "--relevance", str(root / "relevance"),
            "--out", str(out), "--set", "preferences.holdout_days=1", "--set", "preferences.half_life_days=2.0",
            "--set", f"preferences.parameters_from={log / 'fitted'}",
        ],
        after,
    )  # fmt: skip
    assert not out.exists() or content(out) == content(log / "preferences")
    mine(root, out, parameters_from=str(log / "fitted"))
    assert content(out) == content(log / "preferences")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".preferences")] == []


def test_samples_killed_and_made_again_are_the_same_bytes(log: Path, tmp_path: Path) -> None:
    out, inputs = tmp_path / "samples", {name: log / name for name in ("tables", "relevance", "preferences")}
    build_samples.run(**inputs, out=tmp_path / "whole", config=SamplesConfig())
    given = [word for name, path in inputs.items() for word in (f"--{name}", str(path))]
    _killed(["jobs", "build-samples", *given, "--out", str(out)], 7.0)
    build_samples.run(**inputs, out=out, config=SamplesConfig())
    expected, found = content(tmp_path / "whole"), content(out)
    assert {name for name in found if name.startswith("rows/")} and found == expected
