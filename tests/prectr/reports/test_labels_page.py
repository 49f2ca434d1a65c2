"""The page about labels: the content of the artifact, and sentences about data that it lacks."""

import html
import re

import numpy as np
import polars as pl
import pytest

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.errors import PrectrError, UsageError
from prectr.labelling.label_quality import calibrate_and_judge, flip_rate
from prectr.reports.labels_page import summarise, write_label_page
from tests.manifests import write_manifest

HOSTILE = "<script>alert(1)</script> $x$"
MANIFEST = {
    "started": "2026-03-01T10:00:00.000+00:00",
    "wall_seconds": 12.5,
    "versions": {"polars": "0"},
    "config": {"engine": "auto", "replicas": {"at_least": 1}},
    "inputs": {"tables": "simulate:abc:def", "teacher": "t"},
    "rows": {"labels": 300, "questions": 290, "asked": 0, "from_ledger": 290, "errors": 0},
}


@pytest.fixture
def artifact(tmp_path):
    """Write an artifact of `label` with 300 pairs and what else a test gives."""

    def write(errors=(), levels=None, **facts):
        path = tmp_path / "labels"
        path.mkdir()
        rows = 300 if levels is None else len(levels)
        levels = np.random.default_rng(0).dirichlet(np.ones(4), rows) if levels is None else levels
        pl.DataFrame(
            {
                "query": [f"q{row % 30}" for row in range(rows)],
                "item_id": [f"i{row}" for row in range(rows)],
                **{name: levels[:, place].astype(np.float32) for place, name in enumerate(LEVEL_COLUMNS)},
                "outside_mass": ([0.0, 0.0, 5e-3, 0.5] * rows)[:rows],
                "origin": (["exposed", "unexposed", "judged"] * rows)[:rows],
                "stratum": (["head", "tail"] * rows)[:rows],
                "band": (["all", "none"] * rows)[:rows],
            },
            schema_overrides={"outside_mass": pl.Float32},
        ).write_parquet(path / "labels.parquet")
        pl.DataFrame({"error": list(errors)}, schema={"error": pl.String}).write_parquet(path / "errors.parquet")
        write_manifest(path, "label", **(MANIFEST | facts))
        return path

    return write


@pytest.fixture(scope="module")
def quality():
    generator = np.random.default_rng(3)
    levels = generator.dirichlet(np.ones(4), 90)
    gold = pl.DataFrame(
        {
            "query": [f"q{row % 9}" for row in range(90)],
            "item_id": [f"i{row}" for row in range(90)],
            "title": [HOSTILE] * 90,
            "split": ["validation", "held-back"] * 45,
            "grade": np.zeros(90, np.int8),
            **{name: levels[:, place] for place, name in enumerate(LEVEL_COLUMNS)},
        }
    )
    calibration, facts = calibrate_and_judge(gold, calibrate=False)
    return facts | {"calibration": {"scale": calibration.scale, "bias": list(calibration.bias)}}


def _page(path, tmp_path):
    file = tmp_path / "page.html"
    write_label_page(path, file)
    return file.read_text(encoding="utf-8")


def _words(page):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", page, flags=re.S)))


def test_a_full_page(artifact, quality, tmp_path):
    same = np.eye(4)[[0, 1, 2, 3]]
    path = artifact(
        errors=["row 7 is too long", "row 19 is too long", "server: " + HOSTILE],
        teacher="a-teacher",
        prompt="relevance_v1.en-12345678",
        prompt_text="Grade the pair.\n{query} " + HOSTILE,
        run={"engine": "vllm", "seconds": 9.5, "flags": {"vllm": {"eager": True}}, "versions": {"vllm": "9.9"}},
        selection={"cells": [{"origin": "exposed", "stratum": "head", "band": "all", "available": 8, "chosen": 2}]},
        repeats=flip_rate(same, same[[1, 1, 2, 3]]),
        rows=MANIFEST["rows"] | {"asked": 1234, "errors": 3},
        **quality,
    )
    page = _page(path, tmp_path)
    words = _words(page)
    assert "simulated log" in words and "1,234" in words
    assert "The calibrated labels are too lenient on 45 held-back pairs of 9 queries" in words
    assert "exposed head all 8 2 25.0%" in words
    assert "vllm.eager True" in words and "vllm 9.9" in words and "relevance_v1.en-12345678" in words
    assert "row 19 is too long 2" in words
    assert "4 questions were asked a second time: 25.0% got a different" in words
    assert page.count("<svg") == page.count("</svg>") == 2 + 3 + 1
    assert "<script>" not in page and "&lt;script&gt;" in page
    addresses = {address.split("/")[2] for address in re.findall(r"https?://[^\s\"'<>]+", page)}
    assert addresses <= {"www.w3.org", "purl.org", "creativecommons.org", "matplotlib.org"}  # names of the SVG dialect
    assert not re.search(r"<link|<img|@import|\ssrc=", page)
    # Each gold grade is 0, so the first row of the confusion holds every pair.
    counts = quality["quality"]["held_back"]["calibrated"]["confusion"][0]
    assert "0 irrelevant " + " ".join(map(str, counts)) + " 45" in words


def test_missing_data_is_named(artifact, tmp_path):
    words = _words(_page(artifact(inputs={"tables": "validate:x"}), tmp_path))
    for sentence in (
        "the quality of the labels is unknown",
        "The prompt's text was not recorded",
        "the pairs come from a file",
        "The teacher was not asked",
        "No errors",
        "the quality cannot be measured",
        "No question was asked a second time",
        "No judgments of labelled pairs",
    ):
        assert sentence in words
    assert "simulated" not in words


def test_an_artifact_without_labels(artifact, tmp_path):
    path = artifact(levels=np.empty((0, 4)), rows=MANIFEST["rows"] | {"labels": 0})
    assert "There are no labels" in _words(_page(path, tmp_path))


def test_figures_by_hand(artifact):
    levels = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.5, 0, 0.5]], float)
    facts = summarise(artifact(levels=levels))
    assert facts["distributions"]["origin"] == [
        {"name": "judged", "pairs": 1, "levels": [0, 0, 1, 0]},
        {"name": "exposed", "pairs": 2, "levels": [0.5, 0.25, 0, 0.25]},
        {"name": "unexposed", "pairs": 1, "levels": [0, 1, 0, 0]},
    ]
    assert [row["pairs"] for row in facts["outside"]] == [2, 0, 1, 0, 1]
    assert [row["range"] for row in facts["outside"]][:2] == ["< 0.0001", "0.0001 to 0.001"]
    assert facts["flags"] == {"engine": "auto", "replicas.at_least": 1}


def test_one_judged_query_gives_no_verdict(artifact, quality, tmp_path):
    held_back = quality["quality"]["held_back"]
    one_query = held_back | {"calibrated": held_back["calibrated"] | {"verdict": None, "standard_error": None}}
    words = _words(_page(artifact(**quality | {"quality": {"validation": one_query}}), tmp_path))
    assert (
        "is unknown: all 45 validation pairs belong to one query" in words and "no held-back pair was labelled" in words
    )


def test_errors_name_the_place(artifact, tmp_path):
    with pytest.raises(UsageError, match="no label artifact"):
        write_label_page(tmp_path / "nowhere", tmp_path / "page.html")
    with pytest.raises(PrectrError, match=r"absent/page.html: the page cannot be written"):
        write_label_page(artifact(), tmp_path / "absent" / "page.html")
