"""The table: each figure is what its definition says, same rows or nothing, and undefined figures are marked."""

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from jobs import evaluate, train_contestants
from prectr.core import progress
from prectr.core.artifacts import StageResult, without_nan
from prectr.core.errors import PrectrError, UsageError
from prectr.data.judgments import split_of
from prectr.data.tables import Tables
from prectr.evaluation import scores as scores_module
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.contestants import ABLATIONS, PAPER_MODELS, chosen
from prectr.evaluation.day import TestDay
from prectr.evaluation.figures import describe_lists, measure
from prectr.evaluation.off_policy import off_policy_values
from prectr.evaluation.scores import DayScores, bundle_scores, file_scores, position_only, require_comparable
from prectr.evaluation.truth import incentive_by_threshold
from prectr.features.load import Samples
from prectr.features.spec import SPEC_FILE
from prectr.metrics.bootstrap import UserRows
from prectr.metrics.lists import top_mean
from prectr.reports.evaluation import Report, verdicts
from prectr.reports.evaluation_page import render_markdown, render_page
from prectr.reports.terminal import figure_rows, format_figure
from prectr.training.config import TrainConfig
from tests.manifests import write_manifest
from tests.prectr.evaluation_world import CONFIG, DAY, USERS, make_day, make_evaluation, scores, two_models
from tests.prectr.training.test_ranker_loop import write_samples


def test_figures_are_their_definitions(tmp_path: Path) -> None:
    day = make_day(tmp_path)
    models = two_models(day)
    figures = measure(day, models, CONFIG, base="base", improvement_base="base")
    by_seed = [roc_auc_score(day.clicked, seed_scores.logged) for seed_scores in models["good"]]
    figure = figures["all"]["auc"]["good"]
    assert figure["value"] == pytest.approx(np.mean(by_seed)) and figure["seed_spread"] == pytest.approx(
        np.std(by_seed, ddof=1)
    )
    base = np.mean([roc_auc_score(day.clicked, seed_scores.logged) for seed_scores in models["base"]])
    assert figure["difference"]["value"] == pytest.approx(np.mean(by_seed) - base)
    assert figure["difference"]["verdict"] == "better" and figure["difference"]["low"] > 0
    assert figures["all"]["auc"]["base"]["difference"] is None and "rela_impr" not in figures["all"]["auc"]["base"]
    cold = day.slices["cold"]
    expected = np.mean([roc_auc_score(day.clicked[cold], seed_scores.free[cold]) for seed_scores in models["good"]])
    assert figures["cold"]["auc_free"]["good"]["value"] == pytest.approx(expected)
    assert "logloss" not in figures["cold"]
    probabilities = [seed_scores.probability for seed_scores in models["good"]]
    ratio = np.mean([probability.sum() / day.clicked.sum() for probability in probabilities if probability is not None])
    assert figures["all"]["predicted_over_actual"]["good"]["value"] == pytest.approx(ratio)
    rms = [UserRows(day.user, day.clicked).calibration_rms(one) for one in probabilities if one is not None]
    assert figures["all"]["ece"]["good"]["value"] == pytest.approx(
        np.mean([statistic.of_counts(np.ones(USERS)) for statistic in rms])
    )


def test_lists_hold_exposed_and_unexposed_candidates(tmp_path: Path) -> None:
    day = make_day(tmp_path)
    day_scores = scores(day, 1, 0.0)
    figures = measure(day, {"base": [day_scores]}, CONFIG, base="base", improvement_base="base")
    lists = day.lists
    assert lists is not None and day.unexposed is not None
    assert set(lists.request[lists.unexposed]) == set(lists.request)  # requests without unexposed ones are no lists
    score = np.r_[day_scores.free, day_scores.unexposed][lists.row]
    assert figures["candidates"]["level_top"]["base"]["value"] == pytest.approx(
        top_mean(lists.request, lists.level, score, 2)
    )
    hidden = lists.unexposed
    expected = np.mean(
        [
            ndcg_score(
                [2 ** lists.level[hidden & (lists.request == request)] - 1],
                [score[hidden & (lists.request == request)]],
                k=2,
            )
            for request in np.unique(lists.request)
        ]
    )
    assert figures["unexposed"]["level_ndcg"]["base"]["value"] == pytest.approx(expected)
    held_back = [
        split_of(query) == "held-back"
        for query in pl.concat([day.shown["query"], day.unexposed["query"]]).gather(lists.row)
    ]
    assert any(held_back) and not all(held_back)
    np.testing.assert_array_equal(~np.isnan(lists.grade), held_back)  # what trained the encoder judges nobody
    assert (
        describe_lists(lists, {"candidates": "", "exposed": "", "unexposed": ""})["unexposed"]["rows"] == hidden.sum()
    )


def test_grades_that_rankers_are_given_are_no_measure(tmp_path: Path) -> None:
    judged, half, none = (make_day(tmp_path / str(given), given=given) for given in (0, 20, 40))
    assert judged.lists is not None and half.lists is not None
    expected = np.where(judged.lists.pair < 20, np.nan, judged.lists.grade)
    np.testing.assert_array_equal(half.lists.grade, expected)
    assert 0 < np.isfinite(expected).sum() < np.isfinite(judged.lists.grade).sum()
    figures = measure(none, {"m": [scores(none, 1, 1.0)]}, CONFIG, base="m", improvement_base="m")["candidates"]
    assert "level_ndcg" in figures and not {"judged_ndcg", "judged_mrr"} & figures.keys()


def test_without_candidates_or_judgments_there_are_no_lists_or_grades(tmp_path: Path) -> None:
    day = make_day(tmp_path / "a", candidates=False)
    figures = measure(day, {"m": [scores(day, 1, 1.0)]}, CONFIG, base="m", improvement_base="m")
    assert day.lists is None and set(figures) == {"all", "cold"}
    day = make_day(tmp_path / "b", judged=False)
    figures = measure(day, {"m": [scores(day, 1, 1.0)]}, CONFIG, base="m", improvement_base="m")
    assert "judged_ndcg" not in figures["candidates"] and "click_ndcg" not in figures["candidates"]


def test_a_day_of_one_class_has_a_log_loss_and_no_auc(tmp_path: Path) -> None:
    day = make_day(tmp_path, clicked=-1.0)
    models = {"m": [scores(day, 1, 1.0)], "n": [scores(day, 2, 1.0)]}
    figures = measure(day, models, CONFIG, base="n", improvement_base="n")["all"]
    assert all(
        math.isnan(figures[name]["m"]["value"]) for name in ("auc", "gauc", "auc_free", "predicted_over_actual", "ne")
    )
    assert figures["auc"]["m"]["difference"]["verdict"] == "undefined"
    assert figures["logloss"]["m"]["value"] > 0
    content = without_nan(make_evaluation(day, models, "n"))
    assert format_figure(content["figures"]["all"]["auc"]["m"]) == "–"
    report = Report.of(tmp_path, content)
    assert "<td>–</td>" in render_page(report) and "| m | – |" in render_markdown(report)


def test_constant_scores_are_no_difference_and_worth_a_half(tmp_path: Path) -> None:
    day = make_day(tmp_path)
    flat = DayScores(*(np.zeros(len(day.clicked)) for _ in range(2)), np.full(len(day.clicked), 0.4))
    figures = measure(day, {"m": [flat], "n": [flat]}, CONFIG, base="n", improvement_base="n")["all"]
    assert figures["auc"]["m"]["value"] == figures["gauc"]["m"]["value"] == 0.5
    assert figures["auc"]["m"]["difference"]["verdict"] == "no difference"
    assert math.isnan(figures["auc"]["m"]["rela_impr"]["value"])  # a base of one half is refused


def test_scores_of_a_bundle_that_are_nan_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = make_day(tmp_path)
    bad = np.zeros(len(day.clicked), np.float32)
    bad[6] = np.nan
    scorer = SimpleNamespace(score=lambda *_: SimpleNamespace(click_logit=bad, incentive=bad))
    monkeypatch.setattr(scores_module, "Scorer", lambda _: scorer)
    monkeypatch.setitem(day.__dict__, "shown_rows", None)
    day.samples.tokens = None  # type: ignore[misc]
    request, item = day.shown.row(6, named=True)["request_id"], day.shown.row(6, named=True)["item_id"]
    with pytest.raises(
        PrectrError, match=rf"bundle: 1 of 128 scores are NaN or infinite, such as request {request} item {item};"
    ):
        bundle_scores(Path("bundle"), day)


def _write_scores(day: TestDay, file: Path, change: Any = lambda frame: frame) -> Path:
    frame = day.shown.select("request_id", "item_id").with_row_index("score").sample(fraction=1.0, shuffle=True, seed=3)
    frame = change(frame.with_columns(pl.col("score").cast(pl.Float64)))
    frame.write_csv(file) if file.suffix == ".csv" else frame.write_parquet(file)
    return file


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_scores_of_a_file_are_taken_in_the_rows_order(tmp_path: Path, name: str) -> None:
    day = make_day(tmp_path / "tables")
    day_scores = file_scores(_write_scores(day, tmp_path / name), day)
    np.testing.assert_array_equal(day_scores.logged, np.arange(len(day.clicked)))
    np.testing.assert_array_equal(day_scores.free, day_scores.logged)
    assert day_scores.probability is None and day_scores.unexposed is None


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda frame: frame.head(100),
            r"28 rows of the test day 2026-03-05 are missing, such as request r\d+ item i\d+",
        ),
        (lambda frame: pl.concat([frame, frame.head(2)]), r"4 rows are there more than once"),
        (lambda frame: frame.with_columns(item_id=pl.lit("x")).unique(), r"rows are there more than once|are missing"),
        (
            lambda frame: pl.concat([frame, frame.head(1).with_columns(request_id=pl.lit("other"))]),
            r"1 rows are no impressions of the test day 2026-03-05, such as request other item",
        ),
        (lambda frame: frame.drop("score"), r"column 'score' is missing\. The file has: request_id, item_id"),
        (
            lambda frame: frame.with_columns(score=pl.lit("high")),
            r"128 of 128 rows .*: score is not double, such as row 0: ",
        ),
        (
            lambda frame: frame.with_columns(score=pl.when(pl.col("score") == 5).then(float("nan")).otherwise(1.0)),
            r"1 rows have no finite score, such as request",
        ),
        (lambda frame: frame.with_columns(probability=pl.col("score")), r"numbers outside 0\.\.1; are they logits\?"),
    ],
)
def test_a_file_of_other_rows_or_no_numbers_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    day = make_day(tmp_path / "tables")
    file = _write_scores(day, tmp_path / "scores.parquet", change)
    with pytest.raises(UsageError, match=rf"--scores {re.escape(str(file))}: .*{message}"):
        file_scores(file, day)


def _bundle(path: Path, last_day: str, samples: str) -> Path:
    path.mkdir()
    write_manifest(path, "train", last_day=last_day, inputs={"samples": samples})
    return path


def test_bundles_that_saw_the_test_day_or_other_samples_are_refused(tmp_path: Path) -> None:
    good = _bundle(tmp_path / "good", "2026-03-04", "same")
    require_comparable(good, tmp_path / "samples", "same", DAY)
    (tmp_path / "samples").mkdir(exist_ok=True)
    (tmp_path / "samples" / SPEC_FILE).write_text("[1.5]")
    older = _bundle(tmp_path / "older", "2026-03-04", "other")
    (older / SPEC_FILE).write_text("[1.5]")
    require_comparable(older, tmp_path / "samples", "same", DAY)
    for name, last, samples, message in (
        (
            "late",
            "2026-03-05",
            "same",
            "was trained on clicks until 2026-03-05, but the test day is 2026-03-05; a model must",
        ),
        ("later", "2026-03-09", "other", "was trained on clicks until 2026-03-09"),
        (
            "other",
            "2026-03-04",
            "other",
            "was trained on other samples than .*samples; models are compared on the",
        ),
    ):
        bundle = _bundle(tmp_path / name, last, samples)
        (bundle / SPEC_FILE).write_text("[2.5]")
        with pytest.raises(UsageError, match=rf"{name}: {message}"):
            require_comparable(bundle, tmp_path / "samples", "same", DAY)


def test_models_are_chosen_by_name_and_mistakes_are_named() -> None:
    assert [contestant.name for contestant in chosen(["all", "daian"])] == [*PAPER_MODELS, "daian"]
    with pytest.raises(UsageError, match=r"--models deep-fm: no such model; did you mean deepfm\?"):
        chosen(["deep-fm"])
    with pytest.raises(UsageError, match="lr is named twice"):
        chosen(["all", "lr"])


def test_ablations_change_one_thing_each() -> None:
    full = ABLATIONS[-1].config(TrainConfig(), 3).model.model_dump()
    changed = {
        ablation.name: {
            key for key, value in ablation.config(TrainConfig(), 3).model.model_dump().items() if value != full[key]
        }
        for ablation in ABLATIONS
    }
    assert changed == {
        "prectr": {"name"},
        "no-mining": {"preference"},
        "no-debias": {"debias"},
        "frozen": {"encoder"},
        "undistilled": {"encoder"},
        "prectr-v2": set(),
    }


def test_contestants_are_trained_seed_by_seed_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, messages = [], []

    def run(*, out: Path, config: TrainConfig, **_: Any) -> StageResult:
        skipped = out.name == "lr"
        trained.append((out.name, config.model.name, config.seed))
        return StageResult(out, skipped, {})

    monkeypatch.setattr(train_contestants.train, "run", run)
    monkeypatch.setattr(train_contestants, "ray_session", _no_session)
    monkeypatch.setattr(progress, "say", messages.append)
    bundles = train_contestants.run(
        chosen(["lr", "din"]), 2, samples=tmp_path, encoder=tmp_path, preferences=tmp_path, rankers=tmp_path,
        config=TrainConfig(seed=17),
    )  # fmt: skip
    assert trained == [("lr", "lr", 17), ("din", "din", 17), ("lr.seed-18", "lr", 18), ("din.seed-18", "din", 18)]
    assert bundles == {
        "lr": [tmp_path / "lr", tmp_path / "lr.seed-18"],
        "din": [tmp_path / "din", tmp_path / "din.seed-18"],
    }
    assert messages[0] == "training 1 of 4: LR, seed 17" and re.search(
        r"training 3 of 4: LR, seed 18; 2 to go, about 1 min", messages[2]
    )


def _no_session(_: Any) -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_unequal_seeds_and_taken_names_are_refused() -> None:
    with pytest.raises(UsageError, match="equally many seeds, got a 1, b 2"):
        evaluate._check_names({"a": [Path("a")], "b": [Path("b"), Path("c")]}, {})
    with pytest.raises(UsageError, match="--scores oracle: that name is taken"):
        evaluate._check_names({"a": [Path("a")]}, {"oracle": Path("x")})
    with pytest.raises(UsageError, match="nothing to judge"):
        evaluate._check_names({}, {})


def test_slices_of_real_samples_cover_the_day(laboratory: SimpleNamespace, tmp_path: Path) -> None:
    write_samples(laboratory, tmp_path / "samples")
    (tmp_path / "tables").mkdir()
    write_manifest(tmp_path / "tables", "validate")
    day = TestDay.of(Samples.open(tmp_path / "samples"), Tables(tmp_path / "tables"), EvaluateConfig())
    for kinds in (("cold", "warm", "active"), ("head", "torso", "tail")):
        assert (sum(day.slices[kind].astype(int) for kind in kinds) == 1).all()
    prior = position_only(day)
    rates = pl.DataFrame({"position": day.position, "rate": prior.probability}).unique().sort("position")
    assert rates["position"].is_unique().all() and day.truth is None


def test_incentive_by_threshold_sees_tolerance() -> None:
    random = np.random.default_rng(1)
    true = pl.DataFrame({"threshold": random.random(400), "grade": random.integers(0, 4, 400)})
    curve = incentive_by_threshold(-true["threshold"].to_numpy(), true, parts=4)
    assert curve["spearman"] == pytest.approx(1.0)
    assert np.diff(curve["weak"]).max() < 0 and np.diff(curve["threshold"]).min() > 0
    flat = incentive_by_threshold(np.zeros(400), true, parts=4)
    assert math.isnan(flat["spearman"])


def _randomised(day: TestDay, propensity: float | None) -> TestDay:
    """The same day, its log written beside it with one propensity for all rows, half of it randomised."""
    folder = day.tables.path / "impressions" / f"date={DAY}"
    folder.mkdir(parents=True)
    pool = 1 / propensity if propensity else None
    chance = None if pool is None else 1 / (pool - pl.col("position") + 1)
    logged = day.shown.select("request_id", "item_id", "position", "query")
    (logged if chance is None else logged.with_columns(propensity=chance)).write_parquet(folder / "part.parquet")
    randomised = (np.arange(len(day.clicked)) // 4) % 2 == 0
    return dataclasses.replace(day, slices=day.slices | {"randomised": randomised})


def test_off_policy_values_of_the_randomised_slice(tmp_path: Path) -> None:
    day = _randomised(make_day(tmp_path), 1 / 10)
    chosen = day.slices["randomised"]
    flat = DayScores(np.zeros(len(day.clicked)), np.zeros(len(day.clicked)))
    logged_order = DayScores(-day.position.astype(float), -day.position.astype(float))
    models = {"flat": [flat], "logged": [logged_order]}
    rates = lambda rows, position: np.full(len(rows), 0.4 / position)  # noqa: E731
    report = off_policy_values(day, models, base="flat", reward=rates, level=0.95)
    assert report is not None and report["requests"] == 16
    values = report["models"]
    clicks = day.clicked[chosen].sum() / 16
    assert values["random order"]["logged"]["value"] == pytest.approx(clicks)
    assert values["flat"]["ips"]["value"] == values["flat"]["snips"]["value"] == pytest.approx(clicks)
    # The logged order itself: every row matches where it is, with four times the weight that random placement gives.
    assert values["logged"]["ips"]["value"] == pytest.approx(4 * clicks)
    assert values["logged"]["snips"]["value"] == pytest.approx(clicks)
    assert "truth" not in values["flat"]


def test_off_policy_values_need_propensities(tmp_path: Path) -> None:
    day = make_day(tmp_path)
    assert off_policy_values(day, {}, base="m", reward=None, level=0.95) is None
    refused = off_policy_values(_randomised(day, None), {}, base="m", reward=None, level=0.95)
    assert refused is not None and re.match(r"Of 64 propensities 64 are missing", refused["refused"])


def test_report_holds_figures_marks_and_verdicts(tmp_path: Path) -> None:
    day = make_day(tmp_path)
    models = two_models(day)
    content = make_evaluation(day, models, "base")
    heading, *rows = figure_rows(content, (("all", "auc", "AUC"), ("all", "rela_impr", "RelaImpr"), ("no", "auc", "x")))
    assert heading == ["model", "AUC", "RelaImpr"]
    assert re.fullmatch(r"0\.\d{4} ±\.\d{4} ▲", rows[0][1]) and re.fullmatch(r"\+\d+\.\d\d %", rows[0][2])
    assert re.match(r"good against base: AUC \+0\.\d{4} \(better\), GAUC", verdicts(content)[0])
    report = Report.of(tmp_path, content, ablation=content)
    page = render_page(report)
    assert rows[0][1] in page and 'id="ablations"' in page and page.count("<svg") >= 3
    assert "<script" not in page and not re.search(r"""(?:src|href)\s*=\s*["']?(?!\#|data:)[^"'\s>]""", page)
    markdown = render_markdown(report)
    assert f"| {' | '.join(rows[0])[:20]}" in markdown and "## Ablations: Rankers" in markdown
