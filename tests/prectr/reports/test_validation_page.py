"""The page of `prectr validate --report`: bad rows with examples, values, days and what looks suspicious."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from jobs import validate
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig

HOSTILE = "<script>alert(1)</script>"


def write_log(folder: Path, bad_ids: int = 1) -> Path:
    """Three days of 200 rows and one of 10; position 9 is never clicked; user `robot` has a third of the rows."""
    rows = []
    for day, requests in ((2, 100), (3, 100), (4, 100), (5, 5)):
        for request in range(requests):
            for place, position in enumerate((1, 9)):
                rows.append(
                    {
                        "request_id": f"{day}-{request}",
                        "user_id": "robot" if request % 3 == 0 else f"u{day}-{request}",
                        "ts": datetime(2026, 3, day, tzinfo=UTC) + timedelta(minutes=request),
                        "query": "lamp",
                        "item_id": f"i{place}",
                        "position": position,
                        "clicked": position == 1 and request % 2 == 0,
                        "device": HOSTILE if request == 0 else "phone",
                    }
                )
    frame = pl.DataFrame(rows)
    bad = pl.int_range(pl.len()) < bad_ids
    folder.mkdir(parents=True)
    frame.with_columns(pl.when(bad).then(pl.lit("NULL")).otherwise("user_id").alias("user_id")).write_parquet(
        folder / "impressions.parquet"
    )
    pl.DataFrame({"item_id": ["i0", "i1"], "title": ["a lamp", "a lamp"]}).write_csv(folder / "items.csv")
    return folder


def text_of(page: Path) -> str:
    content = page.read_text(encoding="utf-8")
    assert HOSTILE not in content
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", content))


def test_page_shows_bad_rows_values_days_and_suspicions(tmp_path: Path):
    log, page = write_log(tmp_path / "log"), tmp_path / "pages" / "page.html"
    validate.run(source=log, out=tmp_path / "ws" / "tables", report=page, config=ValidateConfig())
    text = text_of(page)
    assert "impressions 610 1 0.16% 0" in text
    assert "1 × user_id is a word for null" in text
    assert "row 0" in text and "&#34;user_id&#34;:&#34;NULL&#34;" in text
    assert "2026-03-05 has 10 rows, less than 10% of the median day (200)" in text
    assert "position 9 was never clicked in 305 rows" in text
    assert "user &#39;robot&#39; has at least 207 of 609 rows" in text
    assert "phone (" in text and "&lt;script&gt;" in text
    assert "<svg" in page.read_text(encoding="utf-8")


def test_page_is_written_for_a_log_that_is_refused_or_up_to_date(tmp_path: Path):
    log, page = write_log(tmp_path / "log", bad_ids=50), tmp_path / "page.html"
    with pytest.raises(PrectrError, match="50 of 610 rows"):
        validate.run(source=log, out=tmp_path / "ws" / "tables", report=page, config=ValidateConfig())
    assert "50 × user_id is a word for null" in text_of(page)
    lenient = ValidateConfig(max_bad_share=0.2)
    for skipped in (False, True):
        page.unlink()
        result = validate.run(source=log, out=tmp_path / "ws" / "tables", report=page, config=lenient)
        assert result.skipped is skipped
        assert "2026-03-05" in text_of(page)
    assert (tmp_path / "ws" / "quarantine" / "rows.parquet").is_file()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path):
    log = write_log(tmp_path / "log")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(PrectrError, match=r"page\.html: the page cannot be written"):
        validate.run(source=log, report=tmp_path / "page.html", config=ValidateConfig())
