"""Exposures and assignment: what counts for whom, in both file formats, and which messages refuse them."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from prectr.core.errors import PrectrError, UsageError
from prectr.evaluation.experiments.analysis import analyse
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.exposures import Experiment, read_experiment, with_derived_sums
from prectr.reports.experiment import markdown
from tests.close import assert_close


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


ROWS = pl.DataFrame(
    {
        "user_id": ["a", "a", "a", "b", "b", "c", "x"],
        "ts": [at(1), at(5), at(6), at(5, 1), at(5, 13), at(6), at(5)],
        "clicked": [True, True, False, True, True, False, True],
        "purchased": [True, False, False, False, True, False, True],
        "price": [7.0, 3.0, None, 4.0, 5.5, None, 1.0],
    }
)
USERS = pl.DataFrame(
    {
        "user_id": ["a", "b", "c", "d"],
        "variant": ["control", "new", "control", "new"],
        "ts": [at(5, 0), at(5, 9), at(6, 0), at(6, 0)],
    }
)


@pytest.fixture
def files(tmp_path: Path):
    """Write tables, by default those above, and read them back as an experiment."""

    def read(
        rows: pl.DataFrame = ROWS, users: pl.DataFrame = USERS, before: pl.DataFrame | None = None, **settings
    ) -> Experiment:
        rows.write_parquet(tmp_path / "rows.parquet")
        users.write_parquet(tmp_path / "users.parquet")
        if before is not None:
            before.write_parquet(tmp_path / "before.parquet")
        return read_experiment(
            tmp_path / "rows.parquet",
            tmp_path / "users.parquet",
            None if before is None else tmp_path / "before.parquet",
            ExperimentConfig(**settings),
        )

    return read


def test_rows_count_from_their_users_assignment_on(files) -> None:
    experiment = files()
    assert experiment.variants == ["control", "new"] and experiment.variant.tolist() == [0, 1, 0, 1]
    assert experiment.days == [date(2026, 3, 5), date(2026, 3, 6)] and experiment.entered.tolist() == [0, 0, 1, 1]
    sums = with_derived_sums(experiment.until(1))
    assert sums["impressions"].tolist() == [2, 1, 1, 0]
    assert sums["clicks"].tolist() == [1, 1, 0, 0] and sums["orders"].tolist() == [0, 1, 0, 0]
    assert sums["amount"].tolist() == [0, 5.5, 0, 0] and sums["converted"].tolist() == [0, 1, 0, 0]
    assert with_derived_sums(experiment.until(0))["impressions"].tolist() == [1, 1, 0, 0]
    assert experiment.before is not None
    assert experiment.before["clicks"].tolist() == [1, 0, 0, 0] and experiment.before["amount"].tolist() == [7, 0, 0, 0]
    assert experiment.counts == {
        "rows_without_assignment": 1,
        "users_without_assignment": 1,
        "rows_before_their_users_assignment": 1,
        "rows_counted": 4,
        "users_in_several_variants": 0,
        "purchases_without_price": 0,
        "rows_with_unknown_purchase": 0,
        "users_without_exposure": 1,
        "repeated_rows": 0,
        "bad_rows": 0,
    }


def test_without_times_of_assignment_all_rows_count_or_those_from_the_start(files) -> None:
    everything = files(users=USERS.drop("ts"))
    assert with_derived_sums(everything.until(99))["impressions"].tolist() == [3, 2, 1, 0] and everything.before is None
    late = files(users=USERS.drop("ts"), start="2026-03-05T10:00:00")
    assert with_derived_sums(late.until(99))["impressions"].tolist() == [2, 1, 1, 0]
    assert late.before is not None and late.before["impressions"].tolist() == [1, 1, 0, 0]
    later = files(start="2026-03-06T00:00:00")  # than the assignments
    assert with_derived_sums(later.until(99))["impressions"].tolist() == [1, 0, 1, 0]


def test_an_earlier_log_is_the_time_before(files) -> None:
    earlier = ROWS.with_columns(pl.col("ts").dt.offset_by("-1d"))
    experiment = files(before=earlier)
    assert experiment.before is not None and experiment.before["impressions"].tolist() == [2, 2, 0, 0]
    assert files(before=earlier, cuped=False).before is None


def test_csv_directories_and_number_types_read_alike(files, tmp_path: Path) -> None:
    expected = with_derived_sums(files().until(9))
    numbers = ROWS.with_columns(
        pl.col("clicked", "purchased").cast(int), pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    folder = tmp_path / "log"
    for number, part in enumerate((numbers[:3], numbers[3:])):
        (folder / f"date={number}").mkdir(parents=True)
        part.write_csv(folder / f"date={number}" / "part.csv")
    USERS.with_columns(pl.col("ts").dt.strftime("%Y-%m-%d %H:%M:%S+0000")).write_csv(tmp_path / "users.csv")
    sums = with_derived_sums(read_experiment(folder, tmp_path / "users.csv", None, ExperimentConfig()).until(9))
    assert {name: values.tolist() for name, values in sums.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_a_row_that_does_not_say_whether_it_was_purchased_is_counted_as_not(files) -> None:
    unknown = ROWS.with_columns(purchased=pl.when(pl.col("purchased")).then(True))
    experiment, known = files(unknown), files(ROWS)
    assert experiment.counts["rows_with_unknown_purchase"] == 4
    assert experiment.until(99)["orders"].tolist() == known.until(99)["orders"].tolist()


def test_only_what_the_columns_allow_is_measured(files) -> None:
    assert [measure.name for measure in files().measures] == ["ctr", "orders", "conversion", "gmv"]
    assert [measure.name for measure in files(ROWS.drop("price")).measures] == ["ctr", "orders", "conversion"]
    assert [measure.name for measure in files(ROWS.drop("purchased")).measures] == ["ctr"]
    assert [measure.name for measure in files(measures=["ctr"]).measures] == ["ctr"]


@pytest.mark.parametrize(
    ("rows", "users", "settings", "message"),
    [
        (
            ROWS.drop("clicked", "ts"),
            USERS,
            {},
            r"rows.parquet: lacks ts \(timestamp.*\), clicked \(bool\); it has price, purchased, user_id",
        ),
        (ROWS, USERS.drop("variant"), {}, r"users.parquet: lacks variant \(string\)"),
        (ROWS, USERS, {"control": "old"}, "no user is in the control 'old'; the variants are control, new"),
        (ROWS, USERS.with_columns(variant=pl.lit("control")), {}, "all users are in 'control'"),
        (ROWS, USERS, {"shares": {"control": 1, "newer": 1}}, "variant 'new' is not in experiment.shares"),
        (
            ROWS,
            USERS,
            {"shares": {"control": 1, "new": 1, "third": 1}},
            "'third', but the only variants are control, new",
        ),
        (ROWS[1:], USERS, {"cuped": True}, "needs such rows. Give earlier impressions with --before"),
        (ROWS.drop("price"), USERS, {"measures": ["gmv"]}, "names gmv, which need the columns"),
    ],
)
def test_wrong_use_is_refused(files, rows, users, settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        files(rows, users, **settings)


@pytest.mark.parametrize(
    ("rows", "users", "settings", "message"),
    [
        (ROWS.with_columns(price=pl.lit(float("nan"))), USERS, {}, "3 purchased rows have a price .* not a number"),
        (ROWS.with_columns(price=pl.lit(-1.0)), USERS, {}, "3 purchased rows have a price that is negative"),
        (
            ROWS.with_columns(price=pl.lit(None, pl.Float64)),
            USERS,
            {},
            r"3 of 3 purchased rows have no price.*\(0.05\)",
        ),
        (
            ROWS.with_columns(user_id=pl.lit(None, pl.String)),
            USERS,
            {},
            "7 of 7 rows of 'exposures' are bad .*user_id is null",
        ),
        (ROWS.with_columns(clicked=pl.lit("perhaps")), USERS, {}, "7 of 7 rows .*: clicked is not bool, such as row 0"),
        (ROWS.with_columns(clicked=pl.lit([True])), USERS, {}, "column 'clicked' has the type list; wanted: bool"),
        (ROWS.with_columns(pl.col("ts").dt.replace_time_zone(None)), USERS, {}, r"'ts' has the type .*no zone\]"),
        (ROWS, USERS.with_columns(pl.col("ts").dt.replace_time_zone(None)), {}, r"'ts' has the type .*no zone\]"),
        (ROWS, pl.concat([USERS, USERS.with_columns(variant=pl.lit("new"))]), {}, "2 of 4 users are in several .*'a'"),
        (ROWS, USERS.with_columns(user_id="u" + pl.col("user_id")), {}, "no row counts: none is of an assigned user"),
    ],
)
def test_bad_data_is_refused(files, rows, users, settings, message) -> None:
    with pytest.raises(PrectrError, match=message):
        files(rows, users, **settings)


def test_a_few_users_of_several_variants_are_left_out_and_counted(files) -> None:
    crossed = pl.concat([USERS, USERS[:1].with_columns(variant=pl.lit("new"))])
    experiment = files(users=crossed, max_crossed_share=0.3)
    assert experiment.counts["users_in_several_variants"] == 1 and len(experiment.variant) == 3
    assert with_derived_sums(experiment.until(9))["clicks"].sum() == 1  # only b's is left


def test_unknown_measures_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="name some of ctr, orders, conversion, gmv"):
        ExperimentConfig(measures=("clicks",))
    with pytest.raises(ValueError, match="every share must be above 0"):
        ExperimentConfig(shares={"control": 1.0, "new": 0.0})


def experiment_of(seed: int, users: int, effect: float, shares: tuple[float, float], folder: Path) -> tuple[Path, Path]:
    """Two days of exposures: a strong effect on clicks, prices with a tail."""
    random = np.random.default_rng(seed)
    treated = random.random(users) < shares[1]
    rows = random.integers(5, 40, users)
    user = np.repeat(np.arange(users), rows)
    clicked = random.random(len(user)) < 0.1 + effect * treated[user]
    exposures = pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "ts": pl.Series([at(1), at(2)])[random.integers(0, 2, len(user)).tolist()],
            "clicked": clicked,
            "purchased": clicked & (random.random(len(user)) < 0.2),
            "price": random.lognormal(2.0, 1.0, len(user)),
        }
    )
    variant = np.where(treated, "treatment", "control")
    exposures.write_parquet(folder / "rows.parquet")
    pl.DataFrame({"user_id": [f"u{n}" for n in range(users)], "variant": variant}).write_parquet(
        folder / "users.parquet"
    )
    return folder / "rows.parquet", folder / "users.parquet"


def test_a_strong_effect_is_found_by_every_interval_and_in_both_directions(tmp_path: Path) -> None:
    config = ExperimentConfig(resamples=200)
    better = analyse(read_experiment(*experiment_of(1, 600, 0.08, (0.5, 0.5), tmp_path), None, config), config)
    comparison = better["measures"]["ctr"]["treatments"]["treatment"]
    assert comparison["verdict"] == comparison["always_valid"]["verdict"] == "better" and comparison["p_value"] < 1e-6
    assert comparison["delta"]["low"] < 0.08 < comparison["delta"]["high"]
    assert better["measures"]["gmv"]["treatments"]["treatment"]["verdict"] == "better"
    worse = analyse(read_experiment(*experiment_of(1, 600, -0.06, (0.5, 0.5), tmp_path), None, config), config)
    assert worse["measures"]["ctr"]["treatments"]["treatment"]["verdict"] == "worse"
    same = analyse(read_experiment(*experiment_of(1, 600, 0.0, (0.5, 0.5), tmp_path), None, config), config)
    assert same["measures"]["ctr"]["treatments"]["treatment"]["verdict"] == "no difference"
    count = len(same["measures"])
    told = re.search(r"Verdicts are not corrected for multiplicity: .* of the (\d+) .* ([\d.]+) times", markdown(same))
    assert told and int(told[1]) == count > 1
    assert float(told[2]) == pytest.approx(norm.ppf(0.025 / count) / norm.ppf(0.025), abs=0.005)


def test_a_sample_ratio_mismatch_withholds_every_verdict(tmp_path: Path) -> None:
    files = experiment_of(2, 600, 0.08, (0.6, 0.4), tmp_path)
    config = ExperimentConfig(resamples=100)
    report = analyse(read_experiment(*files, None, config), config)
    assert not report["sample_ratio"]["ok"] and report["sample_ratio"]["p_value"] < 0.001
    verdicts = {
        verdict
        for measure in report["measures"].values()
        for comparison in measure["treatments"].values()
        for verdict in (comparison["verdict"], comparison["always_valid"]["verdict"])
    }
    assert verdicts == {"withheld"}
    assert "SAMPLE RATIO MISMATCH" in markdown(report) and "No verdict is given" in markdown(report)
    assert "multiplicity" not in markdown(report)
    meant = ExperimentConfig(resamples=100, shares={"control": 60, "treatment": 40})
    assert analyse(read_experiment(*files, None, meant), meant)["sample_ratio"]["ok"]


def test_a_day_of_the_report_is_what_that_day_would_have_said(tmp_path: Path) -> None:
    rows, users = experiment_of(3, 300, 0.03, (0.5, 0.5), tmp_path)
    config = ExperimentConfig(resamples=100)
    whole = analyse(read_experiment(rows, users, None, config), config)
    pl.read_parquet(rows).filter(pl.col("ts") < at(2, 0)).write_parquet(tmp_path / "first.parquet")
    first = analyse(read_experiment(tmp_path / "first.parquet", users, None, config), config)
    assert [day["day"] for day in whole["days"]] == ["2026-03-01", "2026-03-02"]
    assert_close(whole["days"][0], first["days"][0], rel=1e-9)
    comparison = whole["measures"]["ctr"]["treatments"]["treatment"]
    last = whole["days"][-1]["measures"]["ctr"]["treatment"]
    assert comparison["difference"] == pytest.approx(last["difference"], rel=1e-9)
    assert comparison["delta"]["high"] - comparison["difference"] == pytest.approx(last["fixed_reach"])
    assert comparison["always_valid"]["high"] - comparison["difference"] == pytest.approx(last["always_valid_reach"])


def test_too_few_users_make_verdicts_undefined_not_wrong(files) -> None:
    config = ExperimentConfig()
    report = analyse(files(), config)
    gmv = report["measures"]["gmv"]["treatments"]["new"]
    assert gmv["verdict"] == "undefined"
    assert [day["users"] for day in report["days"]] == [2, 4]
    assert "undefined" in markdown(report)
