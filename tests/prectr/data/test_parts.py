"""Parts of a log: every row is in exactly one part, and no part is too large."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_session import Budget, parse_gib, task_budget
from prectr.data.parts import Part, plan_parts, plan_ranges
from prectr.data.tables import Tables
from tests.manifests import write_manifest

DAY = date(2026, 3, 1)


def _tables(root: Path, files: dict[str, int], row_group: int = 1000) -> Tables:
    folder = root / "impressions" / f"date={DAY}"
    folder.mkdir(parents=True)
    for name, rows in files.items():
        pl.DataFrame({"request_id": [f"{name}-{row}" for row in range(rows)]}).write_parquet(
            folder / name, row_group_size=row_group
        )
    write_manifest(root, "validate")
    return Tables(root)


def _covered(parts: list[Part]) -> list[tuple[str, int]]:
    return [
        (piece.file.name, row)
        for part in parts
        for piece in part.slices
        for row in range(piece.start, piece.start + piece.rows)
    ]


@pytest.mark.parametrize("megabytes", [0.2, 0.5, 1, 100])
def test_every_row_is_in_one_part(tmp_path: Path, megabytes: float) -> None:
    files = {"a.parquet": 2500, "b.parquet": 10, "c.parquet": 0, "d.parquet": 700}
    parts = plan_parts(_tables(tmp_path, files), [DAY], Budget(int(megabytes * 2**20), 2))
    covered = _covered(parts)
    assert len(covered) == len(set(covered)) == sum(files.values())
    assert [part.number for part in parts] == list(range(len(parts)))


def test_less_memory_makes_more_and_smaller_parts(tmp_path: Path) -> None:
    tables = _tables(tmp_path, {"a.parquet": 6000, "b.parquet": 3000})
    whole, cut = (plan_parts(tables, [DAY], Budget(size, 2)) for size in (2**30, 2**19))
    assert len(whole) == 1 and [piece.rows for piece in whole[0].slices] == [6000, 3000]
    assert len(cut) > 5 and max(part.rows for part in cut) < 2**19 / 300


def test_a_row_group_above_the_budget_is_cut_inside(tmp_path: Path) -> None:
    parts = plan_parts(_tables(tmp_path, {"a.parquet": 5000}, row_group=5000), [DAY], Budget(2**18, 2))
    assert len(parts) > 4 and len(set(_covered(parts))) == 5000


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    tables = _tables(tmp_path, {"a.parquet": 5})
    (tmp_path / "impressions" / f"date={DAY}" / "bad.parquet").write_text("x,y\n1,2\n")
    with pytest.raises(PrectrError, match=r"bad\.parquet: cannot be read as Parquet .*Write the file again"):
        plan_parts(tables, [DAY], Budget(2**30, 2))


@given(st.lists(st.text(max_size=2), max_size=40), st.integers(1, 10), st.integers(1, 50))
def test_ranges_cover_every_key_once(keys: list[str], a_sample: int, a_range: int) -> None:
    ranges = plan_ranges(sorted(keys), a_sample, a_range)
    for key in keys:
        held = [one for one in ranges if (one.low is None or key >= one.low) and (one.high is None or key < one.high)]
        assert len(held) == 1
    assert [one.number for one in ranges] == list(range(len(ranges)))


@pytest.mark.parametrize(("text", "gib"), [("6GiB", 6.0), ("512 MiB", 0.5), ("4g", 4.0), ("1.5TB", 1536.0)])
def test_sizes_of_memory_are_read(text: str, gib: float) -> None:
    assert parse_gib(text) == gib


@pytest.mark.parametrize("text", ["6", "lots", "0GiB", "-1GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory '.*': not a size; give it as 6GiB or 512MiB"):
        parse_gib(text)


def test_a_head_without_cpus_does_not_limit_the_memory_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    head = {"Alive": True, "Resources": {"memory": 4.0 * 2**30}}
    worker = {"Alive": True, "Resources": {"CPU": 2.0, "memory": 9.0 * 2**30}}
    monkeypatch.setenv("RAY_ADDRESS", "a cluster")
    monkeypatch.setattr(ray, "nodes", lambda: [head, worker, worker, {**worker, "Alive": False}])
    of_cluster = task_budget()
    monkeypatch.setattr(ray, "nodes", lambda: [worker, worker])
    assert of_cluster == task_budget() and of_cluster.at_once == 4
    monkeypatch.setattr(ray, "nodes", lambda: [head])
    assert task_budget().at_once == 1, "its node was lost a moment ago"
