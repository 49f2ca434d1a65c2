"""What stages cost and structures hold, each in a process of its own: `_plan_structures.py WHAT OUT INPUTS..`.

A stage runs its own code, but all of its tasks in this process, one after the other, without Ray: processor time is
then that of the work, whatever else the machine does, and Ray's own is not in it. Of a structure it is the growth of
the process from before it was built to its peak. Leaves `figures.json` in OUT.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import polars as pl
import psutil
import pyarrow as pa

from prectr.core.parquet import from_arrow, to_arrow
from prectr.core.ray_session import Budget
from prectr.data.tables import Tables

TASK_BYTES = 2**29
"""What a task may hold."""
DISTIL_EPOCHS = 2
SCANS = 20
WANTED = 1_000
"""Rows that a look-up wants: hardly any, so that what is timed is the scan."""


def driver_peak() -> int:
    """Most memory that this process held since it started, or since `grown` began, in bytes.

    The kernel's figure for the program at hand: `ru_maxrss` would begin with what the process that started it held.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024


def grown(build: Callable[[], Any]) -> tuple[Any, int]:
    """What `build` gives, and by how many bytes the process grew at most."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak before
    before = psutil.Process().memory_info().rss
    made = build()
    return made, driver_peak() - before


class LocalData:
    """As much of a Ray dataset as `build-samples` uses, in this process."""

    def __init__(self, batches: list[pa.Table]) -> None:
        self._batches = batches

    def map_batches(self, work: Callable[[pa.Table], pa.Table], **_: Any) -> "LocalData":
        """Every batch through `work`."""
        return LocalData([work(batch) for batch in self._batches])

    def repartition(self, count: int, keys: list[str]) -> "LocalData":
        """Rows of a key together."""
        rows = pl.concat(from_arrow(batch) for batch in self._batches)
        place = rows.select(pl.col(keys[0]).hash(seed=0) % count).to_series()
        return LocalData([to_arrow(rows.filter(place == number)) for number in range(count)])

    def iter_batches(self, **_: Any) -> list[pa.Table]:
        """The batches."""
        return self._batches


def without_ray(stage: Any) -> None:
    """Have the module of a stage run its tasks here."""
    import ray
    import ray.data

    def from_items(items: list[dict[str, Any]], **_: Any) -> LocalData:
        return LocalData([pa.Table.from_pylist([item]) for item in items])

    ray.put = lambda value: value
    ray.data.from_items = from_items
    stage.busy_session = lambda _: nullcontext()
    stage.task_budget = lambda _: Budget(TASK_BYTES, 1)
    if hasattr(stage, "run_tasks"):
        stage.run_tasks = lambda work, tasks, at_once, on_done=None: [work(task) for task in tasks]


def mine(tables: Path, relevance: Path, out: Path) -> dict[str, Any]:
    """`mine-preferences`."""
    from jobs import mine_preferences
    from prectr.preferences.config import PreferencesConfig

    without_ray(mine_preferences)
    clock = time.process_time()
    mine_preferences.run(tables=tables, relevance=relevance, out=out, config=PreferencesConfig())
    return {"work_seconds": time.process_time() - clock}


def samples(tables: Path, relevance: Path, preferences: Path, out: Path) -> dict[str, Any]:
    """`build-samples`; what its driver takes to write the online state is noted apart."""
    from jobs import build_samples
    from prectr.features.config import SamplesConfig

    figures: dict[str, Any] = {}
    write_store = build_samples.write_store

    def noted(path: Path, entries: Any) -> dict[str, int]:
        clock = time.process_time()
        counts, figures["state_bytes"] = grown(lambda: write_store(path, entries))
        figures["state_seconds"] = time.process_time() - clock
        return counts

    build_samples.write_store = noted
    without_ray(build_samples)
    inputs = {"tables": tables, "relevance": relevance, "preferences": preferences}
    clock = time.process_time()
    # The made-up relevance holds no unexposed candidates.
    build_samples.run(**inputs, out=out, config=SamplesConfig(candidates=False))
    return figures | {"work_seconds": time.process_time() - clock - figures["state_seconds"]}


def distil(tables: Path, labels: Path, out: Path) -> dict[str, Any]:
    """`distill`: processor time of its loop for each pair of each epoch."""
    from jobs import distill
    from prectr.core import ray_session as sessions
    from prectr.core import ray_train as launch
    from prectr.relevance.config import DistillConfig

    noted: dict[str, Any] = {}

    def fit(loop: Callable[[dict[str, Any]], Any], config: dict[str, Any], **_: Any) -> Any:
        clock = time.process_time()
        facts = loop(config)
        noted["work_seconds"] = time.process_time() - clock
        return facts

    # The job imports both when it runs, or has done so already.
    for module in (sessions, distill):
        module.ray_session = lambda _: nullcontext()
        module.require_resources = lambda *_: None
    for module in (launch, distill):
        module.fit_on_ray = fit
    distill.run(tables=tables, labels=labels, out=out, config=DistillConfig(epochs=DISTIL_EPOCHS, patience=100))
    facts = _manifest(out)
    return noted | {"pairs": facts["rows"]["training"] * facts["metrics"]["epochs"]}


def pair_tables(tables: Path, relevance: Path, samples: Path) -> dict[str, Any]:
    """The table of pairs and texts as the driver of `build-samples` lays it out."""
    from prectr.data.tables import Tables
    from prectr.features.load import match_columns
    from prectr.features.pair_table import pair_table
    from prectr.features.spec import FeatureSpec
    from prectr.features.texts import split_texts
    from prectr.relevance.pairs import read_pairs

    items, spec = Tables(tables).items(), FeatureSpec.load(samples / "feature_spec.json")

    def build() -> Any:
        pairs = pair_table(read_pairs(relevance), items, spec)
        return match_columns(pairs), split_texts(pairs, items.select("item_id", "title"))

    (_, (_, pairs)), grew = grown(build)
    return {"bytes": grew, "pairs": pairs.height}


def pairs_to_score(tables: Path) -> dict[str, Any]:
    """The pairs that the driver of `score-relevance` lays out."""
    from prectr.relevance.batch_scoring import pairs_to_score as lay_out
    from prectr.relevance.config import ScoreConfig

    pairs, grew = grown(lambda: lay_out(Tables(tables), None, ScoreConfig()))
    return {"bytes": grew, "pairs": pairs.height}


def choose_pairs(tables: Path) -> dict[str, Any]:
    """The questions that the driver of `label` chooses from."""
    from prectr.labelling.config import SelectionConfig
    from prectr.labelling.selection import choose_pairs as choose

    chosen, grew = grown(lambda: choose(Tables(tables), SelectionConfig(budget=1000)))
    return {"bytes": grew, "pairs": int(chosen.pool["questions"].sum())}


def pair_index(relevance: Path) -> dict[str, Any]:
    """The index that every machine maps: its arrays, and what building it takes in the driver."""
    from prectr.preferences.pair_index import PairIndex

    index, grew = grown(lambda: PairIndex.open(relevance))
    arrays = sum(getattr(index, name).nbytes for name in ("key", "pair", "expected", "level"))
    texts = index.queries.estimated_size() + index.items.estimated_size()
    return {"bytes": grew, "held": arrays + texts, "pairs": len(index.key), "queries": len(index.queries)}


def prior_clicks(preferences: Path) -> dict[str, Any]:
    """The queries that the driver of `mine-preferences` fits the back-off's strength on."""
    from prectr.preferences.mined import Preferences
    from prectr.preferences.snapshots import Folding, fitted_prior_clicks

    mined = Preferences.open(preferences)
    fitted = tuple(date.fromisoformat(day) for day in _manifest(preferences)["fitted_on"])
    folding = Folding(
        out=preferences,
        days=fitted,
        model=mined.model,
        query_category=mined.query_category,
        half_life=None,
        behaviours_per_query=0,
    )
    queries = (
        pl.scan_parquet([preferences / f"days/date={day}/query/*.parquet" for day in fitted], hive_partitioning=False)
        .select(pl.col("query").n_unique())
        .collect()
        .item()
    )
    _, grew = grown(lambda: fitted_prior_clicks(folding))
    return {"bytes": grew, "queries": queries, "category_bytes": mined.query_category.estimated_size() / queries}


def day_tables(tables: Path, relevance: Path, preferences: Path) -> dict[str, Any]:
    """What a task of `build-samples` reads of its day: pairs, tolerances of users and queries; and what it sends.

    A day of a small log is too small to measure, so the pairs are those of all days at once.
    """
    from prectr.core.coding import code_column
    from prectr.core.parquet import read_table
    from prectr.data.parts import plan_parts
    from prectr.data.tables import Tables
    from prectr.features.read import Reading, read_rows
    from prectr.preferences.mined import Preferences
    from prectr.preferences.passes import day_centres
    from prectr.preferences.shown import ShownReader

    source, mined = Tables(tables), Preferences.open(preferences)
    reader = ShownReader.open(Tables(tables), relevance)

    def known_of_pairs() -> Any:
        known = read_table(preferences / "before" / "pair")
        return known, reader.index.find(code_column(known["query"]), code_column(known["item_id"]))

    clock = time.process_time()
    (known, _), grew = grown(known_of_pairs)
    seconds = time.process_time() - clock
    day = source.days_with_rows("impressions")[-1]
    sent = read_rows(plan_parts(source, [day], Budget(2**26, 1))[0], Reading(mined, reader))
    return {
        "bytes": grew,
        "pair_seconds": seconds,
        "pairs": known.height,
        "user_bytes": bytes_a_row(day_centres(preferences, day)["user"]),
        "sent_bytes": to_arrow(sent).nbytes / sent.height,
    }


def bytes_a_row(frame: pl.DataFrame) -> float:
    """Of a frame in memory."""
    return frame.estimated_size() / frame.height


def look_ups(relevance: Path, preferences: Path) -> dict[str, Any]:
    """What a block of `build-samples` scans whole, however few of the rows it wants: processor time by table."""
    from prectr.preferences.mined import Preferences

    mined = Preferences.open(preferences)
    known = pl.scan_parquet(relevance / "pairs/*.parquet").select("pair", "expected", "encoder_expected", "source")
    wanted = pl.DataFrame({"pair": pl.Series(range(WANTED), dtype=pl.Int32)})
    queries = pl.scan_parquet(preferences / "before/query/*.parquet", hive_partitioning=False).select("query", "date")
    some = queries.head(WANTED).collect()
    made: dict[str, Any] = {"query_days": queries.select(pl.len()).collect().item()}
    made["pairs"] = known.select(pl.len()).collect().item()
    for name, scan in (
        ("pair_seconds", lambda: known.join(wanted.lazy(), on="pair", how="semi").collect(engine="streaming")),
        ("query_seconds", lambda: (mined.before("query", some), mined.behaviours_before(some))),
    ):
        scan()
        clock = time.process_time()
        for _ in range(SCANS):
            scan()
        made[name] = (time.process_time() - clock) / SCANS
    return made


def training_pairs(samples: Path) -> dict[str, Any]:
    """What every training worker holds of all pairs."""
    from prectr.features.load import Samples

    opened = Samples.open(samples)
    tokens, pairs = opened.tokens, opened.pairs
    held = sum(getattr(pairs, name).nbytes for name in ("fields", "level", "match", "levels"))
    held += sum(array.nbytes for array in (tokens.values, tokens.offsets, tokens.query_tokens, tokens.token_types))
    return {"held": held, "pairs": len(tokens), "tokens": len(tokens.values) / len(tokens)}


def training_rows(samples: Path) -> dict[str, Any]:
    """Rows as a training worker loads them: a shard, or the validation day."""
    from prectr.features.load import Samples
    from prectr.training.data import RankerData

    opened = Samples.open(samples)
    made, grew = grown(lambda: RankerData(opened, opened.files(opened.days())))
    return {"bytes": grew, "rows": len(made)}


def queries_of_rows(samples: Path) -> dict[str, Any]:
    """The queries of all training rows, which the driver of `evaluate` reads to tell head from tail."""
    from prectr.features.load import Samples

    opened = Samples.open(samples)
    made, grew = grown(lambda: opened.frame(opened.days(), ["query"])["query"])
    return {"bytes": grew, "rows": len(made)}


def distillation(tables: Path, labels: Path, encoder: Path) -> dict[str, Any]:
    """The labelled pairs as the driver of `distill` lays them out for its worker."""
    from prectr.relevance.distillation import distillation_pairs
    from prectr.relevance.tokenisation import PairTokeniser

    tokeniser = PairTokeniser.load(encoder, 64)

    def build() -> Any:
        pairs = distillation_pairs(Tables(tables), labels)
        return pairs, tokeniser.encode(pairs["query"].to_list(), pairs["title"].to_list())

    (pairs, _), grew = grown(build)
    return {"bytes": grew, "pairs": pairs.height}


def state(samples: Path) -> dict[str, Any]:
    """Bytes of the online state by kind, users without a history apart; and what `publish` takes to write it again."""
    from prectr.features.store import OnlineStore, kind_of, write_keys

    store = OnlineStore(samples / "online")
    size: dict[str, int] = {}
    count: dict[str, int] = {}
    for key, value in store.entries():
        kind = "profile" if kind_of(key) == "user" and "sums" not in value else kind_of(key)
        size[kind] = size.get(kind, 0) + len(key) + len(msgpack.packb(value))
        count[kind] = count.get(kind, 0) + 1
    _, grew = grown(lambda: write_keys(samples.parent / f"{samples.name}-copy", store.entries()))
    return {"size": size, "count": count, "file": (samples / "online" / "data.mdb").stat().st_size, "bytes": grew}


def hashing(folder: Path) -> dict[str, Any]:
    """How fast one driver hashes files: processor time of its four threads together."""
    from prectr.core.artifacts import file_digests

    files = sorted(folder.rglob("*.parquet"))
    clock = time.process_time()
    file_digests(files)
    return {"hash_seconds": time.process_time() - clock, "bytes": sum(file.stat().st_size for file in files)}


def prompts(world: Path) -> dict[str, Any]:
    """Tokens of a question, with the tokenizer of the teacher in a world, for the short prompt and the full rubric."""
    from prectr.labelling.own_teacher.model import load_tokenizer
    from prectr.labelling.prompt import load_prompt, tokenise_prompts
    from prectr.labelling.selection import read_selection

    tokenizer = load_tokenizer(str(world / "teacher"))
    questions = read_selection(world / "selection", Tables(world / "tables"))
    made = {}
    for name in ("relevance_v1", "rubric_v1"):
        template = load_prompt(name)
        lists = tokenise_prompts(tokenizer, template, questions, 4096)
        shortest = min(map(len, lists))
        same = (np.array([ids[:shortest] for ids in lists]) == lists[0][:shortest]).all(axis=0)
        made[name] = {
            "tokens": float(np.mean([len(ids) for ids in lists])),
            "shared": shortest if same.all() else int(same.argmin()),
        }
    return made


def _manifest(artifact: Path) -> dict[str, Any]:
    from prectr.core.artifacts import read_manifest

    return read_manifest(artifact) or {}


STRUCTURES: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        *(
            mine,
            samples,
            distil,
            pair_tables,
            pairs_to_score,
            choose_pairs,
            pair_index,
            prior_clicks,
            day_tables,
        ),
        *(look_ups, training_pairs, training_rows, queries_of_rows, distillation, state, hashing, prompts),
    )
}


def main() -> None:
    """Be one of them."""
    name, out, *inputs = sys.argv[1:]
    figures = STRUCTURES[name](*map(Path, inputs))
    (Path(out) / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
