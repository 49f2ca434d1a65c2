"""Scale on paper: the arithmetic by hand, growth with the load, and unit costs that each have a source."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.build_samples import BLOCK_ROW_BYTES
from jobs.sizing import costs as files
from jobs.sizing.calculator import Answer, calculate, make_load
from jobs.sizing.costs import NAMES, UnitCosts, read_unit_costs, unit_costs
from jobs.sizing.load import Load, Machine, parse_count
from jobs.sizing.stages import SAMPLE_BLOCK_BYTES
from jobs.sizing.structures import MOST_PAIRS
from prectr.core.errors import PrectrError, UsageError

ROOT = Path(__file__).parents[3]
MACHINE = Machine(cores=4, gib=16)
LOAD = {
    "impressions_per_day": 1_000_000,
    "days": 10,
    "queries": 100_000,
    "labels": 50_000,
    "requests_per_second": 100,
    "users": 30_000,
    "items": 20_000,
    "pairs_per_query": 20.0,
}


def _costs(**values: float) -> UnitCosts:
    """Costs of one each, but for those given."""
    made = {
        name: {"value": values.get(name, 1.0), "unit": "B", "what": "a test", "benchmark": "make bench-plan"}
        | {"where": "docs/scale.md"}
        for name in NAMES
    }
    return UnitCosts.model_validate({"machine": "none", "log": "none", "costs": made})


def _answer(costs: UnitCosts | None = None, machine: Machine = MACHINE, **load: Any) -> Answer:
    return calculate(make_load(**LOAD | load), machine, costs or _costs())


def test_a_small_load_comes_out_as_by_hand() -> None:
    costs = _costs(
        tables_bytes_per_impression=40,
        relevance_bytes_per_pair=100,
        partial_bytes_per_impression=200,
        before_bytes_per_impression=30,
        snapshot_bytes_per_impression=20,
        mine_core_seconds_per_impression=0.0072,
        hash_seconds_per_byte=9e-7,
        score_core_seconds_per_pair=0.0036,
        prompt_tokens_per_question=120,
        prompt_shared_tokens=70,
        replica_requests_per_second=25,
        replica_bytes=2**29,
    )
    answer = _answer(costs, hours=8.0, gpu_tokens_per_second=1000.0)
    stages = {one.stage: one for one in answer.stages}

    mine = stages["mine-preferences"]  # 10 M impressions, 2 M pairs
    assert mine.input_bytes == 2 * 10e6 * 40 + 2e6 * 100
    assert mine.shuffle_bytes == 10e6 * 200
    assert mine.output_bytes == 10e6 * (200 + 30 + 20)
    assert mine.core_hours == pytest.approx(20)
    assert mine.serial_hours == pytest.approx(0.1)
    assert mine.machines == 1  # 20 hours of 4 cores are 5, and 7.9 are left

    score = stages["score-relevance"]
    assert (score.core_hours, score.output_bytes) == (pytest.approx(2), 2e6 * 100)
    assert answer.labelling.tokens == 50_000 * 120
    assert answer.labelling.shared_tokens == 50_000 * 70
    assert answer.labelling.gpu_hours == pytest.approx(6e6 / 1000 / 3600)
    assert answer.labelling.gpus == 1
    # 100 requests/s of 100 candidates, 25 * 100 / 2 pairs a replica: 8 of them, two machines of 4 cores, 4 GiB
    assert (answer.serving.replicas, answer.serving.machines) == (8, 2)
    assert answer.serving.replica_bytes == 8 * 2**29


def test_a_structure_breaks_where_its_bytes_reach_the_memory_of_who_holds_it() -> None:
    answer = _answer(_costs(train_bytes_per_row=2**20, day_pairs_bytes_per_pair=2**14))
    rows = next(one for one in answer.structures if one.name == "rows of the validation day")
    assert rows.breaks_at == pytest.approx(16 * 2**30 / (1e6 * 2**20))
    assert rows.breaks_at_count == pytest.approx(16 * 1024)
    day = next(one for one in answer.structures if one.name == "pairs of a day")
    assert day.limit == 4 * 2**30  # a task has a core's share of the machine
    assert day.breaks_at_count == pytest.approx(4 * 2**30 / 2**14)
    assert answer.first_bottleneck.breaks_at == min(one.breaks_at for one in answer.structures)
    assert answer.first_bottleneck.name in ("rows of the validation day", "rows of the test day")


def test_the_number_of_a_pair_ends_at_31_bits_whatever_the_memory() -> None:
    answer = _answer(machine=Machine(cores=4, gib=1e9))
    numbers = next(one for one in answer.structures if one.name == "number of a pair (int32)")
    assert numbers.breaks_at_count == pytest.approx(MOST_PAIRS)
    assert numbers.breaks_at == pytest.approx(MOST_PAIRS / 2e6)


def test_a_serial_part_above_the_deadline_is_met_by_no_number_of_machines() -> None:
    costs = _costs(hash_seconds_per_byte=1.0)
    mine = next(one for one in _answer(costs, hours=6.0).stages if one.stage == "mine-preferences")
    assert mine.serial_hours == pytest.approx(1e7 / 3600)
    assert mine.machines is None


def test_without_a_rate_there_are_no_gpu_hours() -> None:
    labelling = _answer().labelling
    assert labelling.gpu_hours is None and labelling.gpus is None


def test_what_was_not_given_is_called_assumed() -> None:
    load = make_load(**LOAD | {"users": None, "repeats": None, "days": None})
    assert load.assumed == ("users", "repeats")
    assert load.users == Load.model_fields["users"].default


def test_pairs_are_no_more_than_impressions() -> None:
    assert make_load(**LOAD | {"pairs_per_query": 1e9}).pairs == 10_000_000


@given(
    field=st.sampled_from(["impressions_per_day", "days", "labels", "requests_per_second", "users", "items"]),
    factor=st.integers(2, 50),
)
def test_more_load_never_costs_less(field: str, factor: int) -> None:
    costs = unit_costs()
    small, large = (_answer(costs, **{field: LOAD[field] * times}) for times in (1, factor))
    for one, other in zip(small.stages, large.stages, strict=True):
        for name in ("input_bytes", "output_bytes", "shuffle_bytes", "core_hours", "serial_hours"):
            assert getattr(one, name) <= getattr(other, name)
        assert (one.machines or math.inf) <= (other.machines or math.inf)
    assert small.serving.replicas <= large.serving.replicas
    assert small.labelling.tokens <= large.labelling.tokens
    by_name = {(one.name, one.stage): one for one in large.structures}
    assert all(one.breaks_at >= by_name[one.name, one.stage].breaks_at * (1 - 1e-9) for one in small.structures)


@given(factor=st.integers(2, 1000))
def test_scaling_all_counts_scales_all_structures_alike(factor: int) -> None:
    counts = ("impressions_per_day", "queries", "labels", "users", "items")
    costs = unit_costs()
    small, large = _answer(costs), _answer(costs, **{name: LOAD[name] * factor for name in counts})
    for one, other in zip(small.structures, large.structures, strict=True):
        assert one.breaks_at == pytest.approx(other.breaks_at * factor)


@pytest.mark.parametrize("text", ["0", "-5", "many", "", "1X", "1e9"])
def test_a_count_that_is_none_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"--queries .*100M"):
        parse_count(text, "--queries")


@pytest.mark.parametrize(("text", "value"), [("1B", 1e9), ("100M", 1e8), ("10k", 1e4), ("1.5G", 1.5e9), ("7", 7)])
def test_counts_may_be_written_short(text: str, value: float) -> None:
    assert parse_count(text, "--queries") == value


@pytest.mark.parametrize("text", ["big", "0x64", "64x0", "-4x16", "64", "64x", "4.5x16"])
def test_an_unknown_machine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="CORESxGIB"):
        Machine.parse(text)


@pytest.mark.parametrize(
    ("field", "value"), [("impressions_per_day", 0), ("days", -1), ("labels", 0), ("hours", 0), ("candidates", -3)]
)
def test_a_load_of_nothing_is_refused_by_its_option(field: str, value: int) -> None:
    with pytest.raises(UsageError, match="--" + field.replace("_", "-")):
        make_load(**LOAD | {field: value})


def test_more_queries_than_impressions_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot all be shown"):
        make_load(**LOAD | {"queries": 10_000_001})


def test_every_committed_unit_cost_names_a_benchmark_that_exists_and_a_page_that_has_it() -> None:
    found = read_unit_costs(files.FILE)
    assert set(found.costs) == set(NAMES)
    for name, cost in found.costs.items():
        benchmark = cost.benchmark.removeprefix("make bench-").replace("-", "_")
        assert (ROOT / "tests" / "benchmarks" / f"{benchmark}.py").is_file(), name
        page = (ROOT / cost.where).read_text(encoding="utf-8")
        assert cost.benchmark in page, f"{name}: {cost.where} does not name {cost.benchmark}"


def test_the_page_states_the_unit_costs_that_are_committed() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \| ([0-9.,e+-]+) \|", page, re.MULTILINE))
    assert stated == {name: f"{cost.value:.3g}" for name, cost in unit_costs().costs.items()}


@pytest.mark.parametrize("broken", ["missing", "unknown", "no source", "zero"])
def test_a_broken_file_of_unit_costs_is_refused(broken: str, tmp_path: Path) -> None:
    content = yaml.safe_load(files.FILE.read_text(encoding="utf-8"))
    first = content["costs"]["replica_bytes"]
    match broken:
        case "missing":
            del content["costs"]["replica_bytes"]
        case "unknown":
            content["costs"]["other"] = first
        case "no source":
            del first["benchmark"]
        case "zero":
            first["value"] = 0
    file = tmp_path / "costs.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(PrectrError, match="make bench-plan"):
        read_unit_costs(file)


def test_blocks_are_as_large_as_build_samples_makes_them() -> None:
    assert SAMPLE_BLOCK_BYTES == BLOCK_ROW_BYTES
