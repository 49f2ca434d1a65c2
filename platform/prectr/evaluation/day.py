"""The test day: the rows on which all models are evaluated, their slices, and lists with unexposed candidates."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.truth import true_clicks
from prectr.features.inputs import RowArrays
from prectr.features.load import Samples, split_days
from prectr.metrics.slices import Masks, exposure_slices, query_slices, user_slices

ROW_SLICES = {
    "all": "every impression of the test day",
    "cold": "users with at most {cold} earlier requests",
    "warm": "users between cold and active",
    "active": "users with at least {active} earlier requests",
    "head": "the most frequent queries, which have a third of the training days' impressions",
    "torso": "the next frequent queries, with the second third",
    "tail": "all other queries, new ones included",
    "randomised": "requests that were shown in randomised order",
}
LIST_SLICES = {
    "candidates": "requests that kept unexposed candidates: those and the shown items, in one list a request",
    "exposed": "the same requests: shown items only",
    "unexposed": "the same requests: unexposed candidates only",
}


@dataclass(frozen=True)
class Lists:
    """Lists of candidates, one per request that kept unexposed candidates: n rows, the shown ones first.

    Attributes:
        row: [n] row number in the day's shown rows followed by its unexposed rows.
        request: int64 [n] number of the list.
        user: [n] user ids.
        pair: [n] number of the pair of query and item.
        level: [n] expected relevance level, 0..3, as rankers are given it.
        grade: [n] human grade of pairs of queries held back from training whose grade rankers are not given, else NaN.
        click: [n] true click probability if examined; None on a real log.
        unexposed: [n] booleans.
    """

    row: np.ndarray
    request: np.ndarray
    user: np.ndarray
    pair: np.ndarray
    level: np.ndarray
    grade: np.ndarray
    click: np.ndarray | None
    unexposed: np.ndarray

    def masks(self) -> Masks:
        """Row mask of each of `LIST_SLICES`."""
        return {"candidates": np.ones(len(self.row), bool), "exposed": ~self.unexposed, "unexposed": self.unexposed}


@dataclass(frozen=True)
class TestDay:
    """The last day of the samples, with its rows.

    Attributes:
        samples: the samples.
        tables: the log from which the samples were built.
        day: the date.
        shown: sample rows of impressions, in time order.
        unexposed: sample rows of unexposed candidates; None if the log keeps none.
        slices: row mask of `shown` for each of `ROW_SLICES`.
    """

    __test__ = False

    samples: Samples
    tables: Tables
    day: date
    shown: pl.DataFrame
    unexposed: pl.DataFrame | None
    slices: Masks

    @classmethod
    def of(cls, samples: Samples, tables: Tables, config: EvaluateConfig) -> "TestDay":
        """Read the last day of the samples.

        Raises:
            PrectrError: the samples have fewer than three days.
        """
        training, _, day = split_days(samples.days())
        shown = samples.frame([day])
        candidate_files = samples.files([day], "candidates")
        slices = {"all": np.ones(shown.height, dtype=bool)}
        slices |= user_slices(shown["user_requests"], config.cold_requests, config.active_requests)
        slices |= query_slices(shown["query"], samples.frame(training, ["query"])["query"])
        by_exposure = exposure_slices(pl.repeat(True, shown.height, eager=True), shown["policy"])
        if "randomised" in by_exposure:
            slices["randomised"] = by_exposure["randomised"]
        return cls(samples, tables, day, shown, samples.read(candidate_files) if candidate_files else None, slices)

    @property
    def clicked(self) -> np.ndarray:
        """Click labels of the shown rows, [n]."""
        return self.shown["clicked"].to_numpy()

    @property
    def user(self) -> np.ndarray:
        """User ids of the shown rows, [n]."""
        return self.shown["user_id"].to_numpy()

    @property
    def position(self) -> np.ndarray:
        """Positions of the shown rows, from 1, [n]."""
        return self.shown["position"].to_numpy()

    @cached_property
    def shown_rows(self) -> RowArrays:
        """Model inputs of the shown rows."""
        return self.samples.rows(self.shown)

    @cached_property
    def unexposed_rows(self) -> RowArrays | None:
        """Model inputs of the unexposed candidates; None without any."""
        return None if self.unexposed is None else self.samples.rows(self.unexposed)

    @cached_property
    def truth(self) -> pl.DataFrame | None:
        """True click model of the shown rows (`true_clicks`); None on a real log."""
        return true_clicks(self.tables, self.day, self.shown)

    @cached_property
    def unexposed_truth(self) -> pl.DataFrame | None:
        """True click model of the unexposed candidates; None on a real log."""
        return None if self.unexposed is None else true_clicks(self.tables, self.day, self.unexposed, "candidates")

    @cached_property
    def lists(self) -> Lists | None:
        """The lists of candidates; None if the log keeps no unexposed candidates."""
        if self.unexposed is None or not self.unexposed.height:
            return None
        columns = ["request_id", "user_id", "query", "item_id", "pair"]
        frame = pl.concat([self.shown.select(columns), self.unexposed.select(columns)]).with_row_index("row")
        frame = frame.with_columns(unexposed=pl.col("row") >= self.shown.height)
        judged = read_judged(self.tables).filter(pl.col("split") == "held-back").select("query", "item_id", "grade")
        frame = frame.join(judged, on=["query", "item_id"], how="left", maintain_order="left")
        click = None
        if self.truth is not None and self.unexposed_truth is not None:
            column = "p_click_given_exam"
            click = np.r_[self.truth[column].to_numpy(), self.unexposed_truth[column].to_numpy()]
        listed = frame.filter(pl.col("request_id").is_in(self.unexposed["request_id"].unique().implode()))
        row, pair = listed["row"].to_numpy(), listed["pair"].to_numpy()
        levels = self.samples.pairs.levels[pair]
        grade = listed["grade"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return Lists(
            row=row,
            request=listed["request_id"].rank("dense").to_numpy().astype(np.int64),
            user=listed["user_id"].to_numpy(),
            pair=pair,
            level=levels @ np.arange(levels.shape[1]),
            grade=np.where(self.samples.judged_pairs()[pair], np.nan, grade),
            click=None if click is None else click[row],
            unexposed=listed["unexposed"].to_numpy(),
        )
