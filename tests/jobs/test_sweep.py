"""A small sweep on tiny samples with real Ray Tune: killed, resumed, extended, and what it leaves."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from jobs.distill import build_marked_encoder
from jobs.settings import Settings
from prectr.contracts.model_config import EncoderConfig
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig, load_config
from prectr.core.errors import PrectrError, UsageError
from prectr.labelling.own_teacher.model import quiet_transformers
from prectr.training.sweep_config import SearchRange
from prectr.training.sweep_search import early_stopping, proposer
from prectr.training.sweep_trials import Trial
from tests.jobs import sweep_run
from tests.prectr.conftest import laboratory  # noqa: F401
from tests.prectr.training.test_ranker_loop import write_samples
from tests.processes import end_agents, with_code

ROOT = Path(__file__).parents[2]
SEARCHED = {"learning_rate", "batch_size", "model.baseline.hidden"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture
def inputs(place: Path, laboratory: SimpleNamespace) -> tuple[Path, Path]:  # noqa: F811
    """Samples and a tiny encoder; written once."""
    samples, encoder = place / "samples", place / "encoder"
    if not samples.exists():
        write_samples(laboratory, samples)
        quiet_transformers()
        tiny = build_marked_encoder(EncoderConfig(layers=1, width=8, heads=2, feed_forward=16), 40)

        def build(staging: Path) -> dict[str, Any]:
            tiny.model.save_pretrained(staging)
            return {}

        run_stage("distill", encoder, config=FrozenConfig(), inputs={}, build=build)
    return samples, encoder


def _ledger(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{out.name}.sweep-*/trial-*.json"))


def _kill_after(trials: int, out: Path, *arguments: Path) -> None:
    """Run the sweep in a process of its own and kill it once so many trials are finished."""
    environment = with_code()
    command = [sys.executable, "-m", "tests.jobs.sweep_run", *map(str, arguments)]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + 240
        while len(_ledger(out)) < trials:
            assert time.monotonic() < end and driver.poll() is None, "waited in vain"
            time.sleep(0.02)
    finally:
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    end_agents(children)


@pytest.fixture
def swept(place: Path, inputs: tuple[Path, Path], ray_local: None) -> SimpleNamespace:
    """A sweep that was killed after two trials and resumed; made once."""
    out, starts, noted = place / "swept", place / "starts.txt", place / "noted.json"
    if not noted.exists():
        _kill_after(2, out, *inputs, out, starts)
        kept = [json.loads(file.read_text()) for file in _ledger(out)]
        before = len(starts.read_text().split())
        sweep_run.run(*inputs, out, starts, resume=True)
        noted.write_text(json.dumps({"kept": kept, "before": before, "after": len(starts.read_text().split())}))
    told = json.loads((out / "trials.json").read_text())
    return SimpleNamespace(
        out=out, starts=starts, trials=told["trials"], best=told["best"], **json.loads(noted.read_text())
    )


def test_a_killed_sweep_goes_on_and_runs_no_finished_trial_again(swept: SimpleNamespace) -> None:
    assert 2 <= len(swept.kept) < sweep_run.SWEEP.trials, "it was killed in the middle"
    assert swept.after - swept.before == sweep_run.SWEEP.trials - len(swept.kept)
    assert len(swept.trials) == sweep_run.SWEEP.trials
    for kept, trial in zip(swept.kept, swept.trials):
        assert trial["settings"] == kept["settings"] and trial["points"] == kept["points"]
    drawn = [json.dumps(trial["settings"]) for trial in swept.trials]
    assert len(set(drawn)) == len(drawn), "what is drawn after the kill is not what was drawn before it"
    assert not _ledger(swept.out), "what a finished sweep kept is gone"


def test_trials_hold_their_settings_and_validations(swept: SimpleNamespace) -> None:
    for trial in swept.trials:
        assert [point["step"] for point in trial["points"]] == sorted({point["step"] for point in trial["points"]})
        assert trial["settings"].keys() == SEARCHED and trial["error"] is None and trial["seconds"] > 0
        assert 1e-3 <= trial["settings"]["learning_rate"] <= 3e-2
        assert trial["best"] == min(point["logloss"] for point in trial["points"])
    assert swept.best["best"] == min(trial["best"] for trial in swept.trials)


def test_best_settings_are_a_configuration_file(swept: SimpleNamespace) -> None:
    train = load_config(Settings, swept.out / "best.yaml").train
    found = swept.best["settings"]
    expected = sweep_run.TRAIN.model_copy(update={name: found[name] for name in ("learning_rate", "batch_size")})
    baseline = expected.model.baseline.model_copy(update={"hidden": tuple(found["model.baseline.hidden"])})
    assert train == expected.model_copy(update={"model": expected.model.model_copy(update={"baseline": baseline})})


def test_the_page_shows_every_trial(swept: SimpleNamespace) -> None:
    page = (swept.out / "trials.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1 + len(SEARCHED)
    assert len(re.findall(r"<tr(?! class)", page)) + page.count('<tr class="served"') == 1 + len(swept.trials)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!\#|data:)[^"'\s>]""", page)


def test_more_trials_go_on_from_the_published_ones(swept: SimpleNamespace, inputs: tuple[Path, Path]) -> None:
    more = sweep_run.SWEEP.model_copy(update={"trials": len(swept.trials) + 1})
    before = len(swept.starts.read_text().split())
    sweep_run.run(*inputs, swept.out, swept.starts, config=more)
    assert len(swept.starts.read_text().split()) == before + 1
    trials = json.loads((swept.out / "trials.json").read_text())["trials"]
    assert trials[: len(swept.trials)] == swept.trials and len(trials) == more.trials


def test_a_sweep_of_failures_says_why(inputs: tuple[Path, Path], tmp_path: Path, ray_local: None) -> None:
    wild = sweep_run.SWEEP.model_copy(
        update={"search": {"learning_rate": SearchRange(low=1e30, high=2e30)}, "trials": 1}
    )
    train = sweep_run.TRAIN.model_copy(update={"warm_up": 0.0, "evaluations_per_epoch": 1})
    with pytest.raises(PrectrError, match=r"all 1 trials failed; .*the loss became .*lower train\.learning_rate"):
        sweep_run.run(*inputs, tmp_path / "out", tmp_path / "starts", config=wild, train=train)


@pytest.mark.parametrize(
    ("name", "space", "told"),
    [
        ("learnig_rate", SearchRange(low=0.1, high=0.2), r"no setting 'learnig_rate'. Did you mean 'learning_rate'\?"),
        ("model.fusion", SearchRange(choices=(1,)), "no setting 'model.fusion'"),
        ("workers", SearchRange(choices=(1, 2)), "no setting 'workers'"),
        ("epochs", SearchRange(choices=(1, 0)), "train.epochs: Input should be greater than or equal to 1"),
    ],
)
def test_a_search_that_train_would_refuse_is_refused_first(
    inputs: tuple[Path, Path], tmp_path: Path, name: str, space: SearchRange, told: str
) -> None:
    config = sweep_run.SWEEP.model_copy(update={"search": {name: space}})
    with pytest.raises(UsageError, match=f"sweep.search: .*{told}"):
        sweep_run.run(*inputs, tmp_path / "out", tmp_path / "starts", config=config)
    assert not (tmp_path / "starts").exists()


def _finished(*reached: float) -> Trial:
    settings = {"learning_rate": 0.01, "batch_size": 8, "model.baseline.hidden": [16, 8]}
    return Trial(settings, [{"reached": value} for value in reached], 1.0)


def test_asha_is_told_how_finished_trials_went() -> None:
    """A first trial of a resumed sweep is stopped where those before it were better."""
    worse = {"training_iteration": 1, "reached": 0.4}
    decisions = []
    for finished in ([], [_finished(0.3, 0.2, 0.2, 0.2)], [_finished(0.5, 0.2, 0.2, 0.2)]):
        scheduler = early_stopping(sweep_run.SWEEP, sweep_run.TRAIN, finished)
        trial: Any = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, trial)
        decisions.append(scheduler.on_trial_result(None, trial, worse))
    assert decisions == ["CONTINUE", "STOP", "CONTINUE"]


def test_optuna_is_told_what_finished_trials_reached_and_draws_others() -> None:
    fresh, resumed = (proposer(sweep_run.SWEEP, finished) for finished in ([], [_finished(0.3)]))
    drawn = [sweep_run.SWEEP.settings(one.suggest("first")) for one in (fresh, resumed)]
    assert drawn[0] != drawn[1] and all(settings.keys() == SEARCHED for settings in drawn)
    told = resumed._ot_study.trials[0]
    assert told.value == 0.3 and sweep_run.SWEEP.settings(told.params) == _finished(0.3).settings


def test_nothing_to_resume_is_said(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep of these settings and inputs to resume"):
        sweep_run.run(*inputs, tmp_path / "out", tmp_path / "starts", resume=True)
