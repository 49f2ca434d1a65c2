"""mine-preferences: the relevance levels that users, queries and categories really click, as of every day.

The log is cut into parts that fit a task. A task aggregates its part into partials of the part's day, which are kept.
The folds after it read the partials, each task a range of keys.

    fit      parameters: click curve, examination, priors            a window of the log, once
    plain    tolerances of users and queries, uncorrected            one pass over new days
    centres  tolerances known on the morning of each day             a fold over all days' partials
    main     all sums, each side corrected for the other             one pass over new days   (docs/model.md)
    fold     preferences before each day, and after the last         a fold over all days' partials
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jobs.options import MEMORY, Force, Out, Relevance, TablesIn, command
from prectr.contracts.model_config import LEVELS
from prectr.core import progress
from prectr.core.artifacts import StageResult, fingerprint, read_manifest, require_artifact, run_stage, write_json
from prectr.core.ray_session import Budget, RayConfig, busy_session, task_budget
from prectr.core.ray_tasks import run_tasks
from prectr.core.schema_versions import SCHEMA_VERSIONS, schema_of
from prectr.core.text import NORMAL_FORM
from prectr.data.parts import KeyRange, Part, plan_parts, plan_ranges
from prectr.data.tables import Tables
from prectr.preferences import days as kept_days
from prectr.preferences import passes, snapshots
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.days import KeptDay
from prectr.preferences.examination import fit_examination
from prectr.preferences.fit import PreferenceModel, fit_preference_model
from prectr.preferences.partials import MAIN_KINDS
from prectr.preferences.passes import Pass, Passed
from prectr.preferences.shown import ShownReader, categories_shown
from prectr.preferences.smoothing import RATES
from prectr.preferences.snapshots import Folding
from prectr.relevance.pairs import read_pairs

FOLD_ROW_BYTES = 2_000
"""Bytes that a fold holds for a key's row of a day: its sums, twice in doubles, and temporary columns."""
REFITTED_BY = (
    "holdout_days",
    "fit_rows",
    "fit_window_rows",
    "examination",
    "examination_exponent",
    "min_randomised_clicks",
    "parameters_from",
    "smoothing_clicks",
    "level_prior_clicks",
)
"""Settings that the parameters depend on."""
REMINED_BY = ("alternate", "behaviours_per_query")
"""Settings that the partials of a day depend on."""


@command("mine-preferences", shortcuts=MEMORY)
def run(
    *,
    tables: TablesIn,
    relevance: Relevance,
    out: Out,
    config: PreferencesConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Mine the log below `tables` with the relevance of `relevance` and publish the preferences at `out`.

    Days that an artifact at `out` has mined from the same files and relevance are reused; `force` mines and fits
    everything again. `prectr.preferences.snapshots` describes the artifact.

    Raises:
        PrectrError: the log holds no impressions, or a file is damaged or not valid.
    """
    require_artifact(relevance, "score-relevance")
    source = Tables(tables)

    def build(staging: Path) -> dict[str, Any]:
        with busy_session(ray_config):
            mining = Mining(source, relevance, staging, None if force else out, config, task_budget(ray_config))
            return mining.run()

    inputs = {"tables": tables, "relevance": relevance}
    return run_stage("mine-preferences", out, config=config, inputs=inputs, build=build, force=force)


Fold = Callable[[KeyRange, Folding], Any]
"""A function of `snapshots` that folds a range of keys and writes its part of some tables."""


class Mining:
    """One run of the stage."""

    def __init__(
        self,
        tables: Tables,
        relevance: Path,
        out: Path,
        old: Path | None,
        config: PreferencesConfig,
        budget: Budget,
    ) -> None:
        """Open the inputs.

        Args:
            tables: the log.
            relevance: the relevance artifact.
            out: directory of the artifact to build.
            old: the artifact that it replaces, whose days may be reused; None: mine all days.
            config: the settings.
            budget: memory and number of tasks.
        """
        import ray

        self._tables, self._relevance, self._out, self._config, self._budget = tables, relevance, out, config, budget
        self._days = tables.days_with_rows("impressions")
        manifest = read_manifest(old) if old is not None else None
        usable = manifest is not None and (schema_of(manifest), manifest.get("normal_form")) == (
            SCHEMA_VERSIONS["mine-preferences"],
            NORMAL_FORM,
        )
        self._old = old if usable else None
        self._old_manifest = manifest or {}
        reader = ray.put(ShownReader.open(tables, relevance))
        self._unfitted = Pass(out, reader)
        self._fitted_now = False
        made_from = require_artifact(relevance, "score-relevance")
        self._encoder = made_from["inputs"].get("encoder")
        self._calibration = kept_days.calibration_of(made_from)

    def run(self) -> dict[str, Any]:
        """Mine; returns the facts for the manifest."""
        coverage = relevance_coverage(self._relevance)
        pairs = sum(coverage.values())
        shares = ", ".join(f"{count / pairs:.1%} {source}" for source, count in coverage.items())
        progress.say(f"  {pairs:,} pairs with a relevance: {shares}")
        model, fitted = self._parameters()
        shared = Pass(
            self._out, self._unfitted.reader, model, self._config.behaviours_per_query, self._config.alternate
        )
        kept, sources = self._reuse_days(model)
        new = [day for day in self._days if day not in kept]
        if kept:
            progress.say(f"  {len(kept)} days were mined before, {len(new)} to mine")
        parts = plan_parts(self._tables, new, self._budget)
        plain = self._pass("first pass", parts, partial(passes.plain_pass, shared=shared))

        folding = self._folding(model)
        keys = KeySamples([one.samples for one in kept.values()] + [one.keys for one in plain])
        self._fold(
            "tolerances", keys, folding, {"user_id": snapshots.centres_of_users, "query": snapshots.centres_of_queries}
        )

        centres = {day: kept_days.centres_hash(passes.day_centres(self._out, day)) for day in self._days}
        stale = [day for day, one in kept.items() if one.centres != centres[day]]
        renewed = stale if self._config.late_days == "renew" else []
        if renewed:
            parts, stale = self._renew(parts, renewed), []
        elif stale:
            progress.say(
                f"  {len(stale)} days keep their corrections from the run that mined them; "
                "--set preferences.late_days=renew mines them again"
            )
        main = self._pass("second pass", parts, partial(passes.main_pass, shared=shared))
        self._write_days(parts, plain, main, kept, sources, centres)

        model = self._smoothed(model, folding, fitted)
        folding = replace(folding, model=model)
        keys = KeySamples([keys.samples, *(one.keys for one in main)])
        return {
            "rows": self._merge(folding, keys),
            "days": {"mined": [str(day) for day in new], "kept": [str(day) for day in kept]},
            "renewed_corrections": [str(day) for day in renewed],
            "stale_corrections": [str(day) for day in stale],
            "fitted_on": fitted,
            "encoder": self._encoder,
            "relevance_sources": coverage,
            "parameters": {
                "click": model.click.to_json(),
                "examination": vars(model.examination),
                "rate_prior_clicks": model.rate_prior_clicks,
                "level_prior_clicks": model.level_prior_clicks.tolist(),
            },
        }

    def _parameters(self) -> tuple[PreferenceModel, list[str]]:
        """The fitted model and the days it was fitted on: the old artifact's, or a new fit."""
        before, now = self._old_manifest.get("config", {}), self._config.model_dump(mode="json")
        if self._config.parameters_from is not None:
            given = Path(self._config.parameters_from)
            fitted = list(require_artifact(given, "mine-preferences")["fitted_on"])
            model, category = PreferenceModel.load(given / "parameters.json"), _query_category(given)
        elif (
            self._old is not None
            and all(before.get(name) == now[name] for name in REFITTED_BY)
            and self._old_manifest["encoder"] == self._encoder
        ):
            model = PreferenceModel.load(self._old / "parameters.json")
            category, fitted = _query_category(self._old), list(self._old_manifest["fitted_on"])
            progress.say("  parameters kept; --force fits them again")
        else:
            model, category, fitted = self._fit()
            self._fitted_now = True
        category.write_parquet(self._out / "query_category.parquet")
        progress.say(
            f"  click curve a={model.click.a:.3f} s={model.click.s:.3f} eps={model.click.eps:.4f}; "
            f"exam(pos) = pos^-{model.examination.exponent:.2f} from {model.examination.source}"
        )
        return model, fitted

    def _smoothed(self, model: PreferenceModel, folding: Folding, fitted: Sequence[str]) -> PreferenceModel:
        """The model with its back-off strength: from the settings, an earlier fit, or fitted on the days of the fit."""
        if self._config.smoothing_clicks is not None:
            model = replace(model, rate_prior_clicks=dict.fromkeys(RATES, self._config.smoothing_clicks))
        if self._config.level_prior_clicks is not None:
            model = replace(model, level_prior_clicks=np.full(LEVELS, self._config.level_prior_clicks))
        elif self._fitted_now:
            days = tuple(date.fromisoformat(day) for day in fitted)
            model = replace(model, level_prior_clicks=snapshots.fitted_prior_clicks(replace(folding, days=days)))
        strengths = ", ".join(f"{clicks:.1f}" for clicks in model.level_prior_clicks)
        progress.say(f"  rates of levels 0 to {LEVELS - 1} back off with {strengths} clicks")
        strengths = ", ".join(f"{kind} {clicks:.1f}" for kind, clicks in model.rate_prior_clicks.items())
        progress.say(f"  rates of all levels back off with {strengths} clicks")
        write_json(self._out / "parameters.json", model.to_json())
        return model

    def _fit(self) -> tuple[PreferenceModel, pl.DataFrame, list[str]]:
        training = self._days[: max(1, len(self._days) - self._config.holdout_days)]
        window: list[Part] = []
        for day in reversed(training):
            if sum(part.rows for part in window) >= self._config.fit_window_rows:
                break
            window = plan_parts(self._tables, [day], self._budget) + window
        share = self._config.fit_rows / sum(part.rows for part in window)
        self._pass("fit", window, partial(passes.fit_pass, shared=self._unfitted, share=share))
        counts, shown, sample = passes.read_fit(self._out, share)
        category = categories_shown(shown)
        model = fit_preference_model(sample, fit_examination(counts, sample.queries, self._config), category)
        return model, category, sorted({str(part.day) for part in window})

    def _reuse_days(self, model: PreferenceModel) -> tuple[dict[date, KeptDay], dict[date, str]]:
        """Link partials of unchanged days from the old artifact; returns these days and the source hash of all days."""
        settings = {name: getattr(self._config, name) for name in REMINED_BY}
        sources = kept_days.source_hashes(self._tables, self._days, model, settings)
        if self._old is None:
            return {}, sources
        old_days = {day: kept_days.read_day(self._old, day) for day in self._days}
        same = {day: one for day, one in old_days.items() if one is not None and one.source == sources[day]}
        if self._old_manifest["inputs"]["relevance"] != fingerprint(self._relevance):
            work = partial(passes.relevance_of_day, artifact=self._old, shared=self._unfitted)
            now = dict(zip(same, run_tasks(work, list(same), self._budget.at_once), strict=True))
            same = {
                day: one
                for day, one in same.items()
                if one.relevance == now[day] and kept_days.same_calibration(one.calibration, self._calibration)
            }
        for day in same:
            kept_days.take_over(self._old, self._out, day)
        return same, sources

    def _renew(self, parts: list[Part], stale: list[date]) -> list[Part]:
        """The parts to read again so that no day keeps corrections of the past."""
        for day in stale:
            for kind in MAIN_KINDS:
                shutil.rmtree(kept_days.day_folder(self._out, day) / kind)
        return parts + plan_parts(self._tables, stale, self._budget)

    def _write_days(
        self,
        parts: Sequence[Part],
        plain: Sequence[Passed],
        main: Sequence[Passed],
        kept: dict[date, KeptDay],
        sources: dict[date, str],
        centres: dict[date, str],
    ) -> None:
        """Write `day.json` of each day that this run mined."""
        first = dict(zip(((part.day, part.number) for part in parts), plain, strict=False))
        for day in sorted({part.day for part in parts}):
            passed = [one for part, one in zip(parts, main, strict=True) if part.day == day]
            keys = [one.keys for one in passed] + [one.keys for (other, _), one in first.items() if other == day]
            if day in kept:
                keys.append(kept[day].samples)
            relevance = sum(one.relevance for one in passed) % 2**64
            samples = KeySamples(keys).samples
            kept_day = KeptDay(sources[day], str(relevance), centres[day], samples, self._calibration)
            kept_days.write_day(self._out, day, kept_day)

    def _merge(self, folding: Folding, keys: "KeySamples") -> dict[str, int]:
        """Fold all days; row counts by table."""
        rows = {"category": snapshots.fold_categories(folding)}
        folds: dict[str, Fold] = {
            "query": snapshots.fold_queries,
            "user_id": snapshots.fold_users,
            "item_id": snapshots.fold_items,
        }
        for counts in self._fold("merge", keys, folding, folds):
            rows = {table: rows.get(table, 0) + counts.get(table, 0) for table in rows | counts}
        return rows

    def _pass(self, name: str, parts: Sequence[Part], work: Callable[[Part], Any]) -> list[Any]:
        with progress.track(f"mine-preferences: {name}", total=sum(part.rows for part in parts), unit="rows") as bar:
            return run_tasks(work, parts, self._budget.at_once, lambda number: bar.advance(parts[number].rows))

    def _fold(self, name: str, keys: "KeySamples", folding: Folding, folds: dict[str, Fold]) -> list[Any]:
        """Run folds, each over the ranges of its key column."""
        rows = self._budget.rows(FOLD_ROW_BYTES)
        tasks = [
            (fold, keys_of)
            for key, fold in folds.items()
            for keys_of in plan_ranges(keys.samples.get(key, []), passes.SAMPLE_ROWS, rows)
        ]
        with progress.track(f"mine-preferences: {name}", total=len(tasks), unit="ranges") as bar:
            work = partial(_fold_range, folding=folding)
            return run_tasks(work, tasks, self._budget.at_once, lambda _: bar.advance(1))

    def _folding(self, model: PreferenceModel) -> Folding:
        return Folding(
            out=self._out,
            days=tuple(self._days),
            model=model,
            query_category=_query_category(self._out),
            half_life=self._config.half_life_days,
            behaviours_per_query=self._config.behaviours_per_query,
        )


class KeySamples:
    """Keys that tasks sampled, by key column. The driver splits the key space by them."""

    def __init__(self, samples: Sequence[dict[str, list[str]]]) -> None:
        names = sorted({name for sample in samples for name in sample})
        self.samples = {name: sorted(key for sample in samples for key in sample.get(name, [])) for name in names}


def _fold_range(task: tuple[Fold, KeyRange], folding: Folding) -> Any:
    fold, keys = task
    return fold(keys, folding)


def _query_category(artifact: Path) -> pl.DataFrame:
    return pl.read_parquet(artifact / "query_category.parquet")


def relevance_coverage(relevance: Path) -> dict[str, int]:
    """Pairs by the source of their relevance."""
    counts = read_pairs(relevance, ["source"]).group_by("source").len().sort("source")
    return dict(counts.iter_rows())
