"""What the labelling benchmark asks, and whom: a teacher with random weights, and pairs of the built-in marketplace."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from _logs import SEED

from jobs import simulate
from prectr.data.marketplace import MarketplaceConfig
from prectr.data.tables import Tables, distinct_pairs
from prectr.labelling.config import LabelConfig, TeacherConfig, VllmConfig
from prectr.labelling.own_teacher.model import load_tokenizer, new_model, train_bpe
from prectr.labelling.prompt import PromptTemplate, label_token_ids, load_prompt, tokenise_prompts

MAX_LENGTH = 640
SHAPE = TeacherConfig(width=256, layers=6, heads=4, feed_forward=768, max_length=MAX_LENGTH)
CONFIG = LabelConfig(
    prompt="rubric_v1", engine="vllm", max_length=MAX_LENGTH, repeat_sample=0, vllm=VllmConfig(cpu_cache_gib=1)
)
GAIN = 3.0
"""Fresh linear layers are scaled up by this, so that answers differ from pair to pair: else every answer is a quarter a
level, and sides that asked different things would agree as well."""


@dataclass(frozen=True)
class World:
    """Files that all sides read.

    Attributes:
        folder: holds `teacher/`, `questions.parquet` (key, query, title, category, brand, prompt_tokens; in the order
            in which `label` asks) and `label_tokens.json`.
    """

    folder: Path

    @property
    def teacher(self) -> Path:
        """An ordinary checkpoint directory."""
        return self.folder / "teacher"

    def template(self) -> PromptTemplate:
        """The prompt."""
        return load_prompt(CONFIG.prompt)

    def questions(self) -> pl.DataFrame:
        """The pairs with their token ids."""
        return pl.read_parquet(self.folder / "questions.parquet")

    def label_tokens(self) -> list[int]:
        """Token ids of the labels."""
        tokens: list[int] = json.loads((self.folder / "label_tokens.json").read_text(encoding="utf-8"))
        return tokens


def make_world(folder: Path, pairs: int) -> World:
    """A world of so many pairs; the marketplace in it is made once a folder."""
    tables = folder / "labelling-tables"
    simulate.run(out=tables, config=MarketplaceConfig(scale="small", seed=SEED))
    world = World(folder / f"labelling-{pairs}")
    world.folder.mkdir(exist_ok=True)
    write_teacher(world.teacher, world.template(), Tables(tables).items()["title"])
    questions = distinct_questions(tables, pairs)
    tokenizer = load_tokenizer(str(world.teacher))
    prompts = tokenise_prompts(tokenizer, world.template(), questions, MAX_LENGTH)
    questions = questions.with_columns(pl.Series("prompt_tokens", prompts, pl.List(pl.Int32)))
    questions.write_parquet(world.folder / "questions.parquet")
    tokens = label_token_ids(tokenizer, world.template())
    (world.folder / "label_tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    return world


def write_teacher(directory: Path, template: PromptTemplate, titles: pl.Series, shape: TeacherConfig = SHAPE) -> None:
    """A Qwen2 of a given shape with random weights and a vocabulary of these titles and this prompt."""
    import torch

    torch.manual_seed(SEED)
    tokenizer = train_bpe([template.text, *template.labels, *titles.to_list()], shape.vocabulary, shape.max_length)
    tokenizer.save_pretrained(directory)
    model = new_model(shape, len(tokenizer), tokenizer.eos_token_id)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            module.weight.data.mul_(GAIN)
    model.model.norm.weight.data.mul_(GAIN)
    model.save_pretrained(directory)


def distinct_questions(tables: Path, count: int) -> pl.DataFrame:
    """Columns key, query, title, category, brand of `count` pairs of the log, no two of them with the same texts.

    Raises:
        SystemExit: the log has fewer.
    """
    items = Tables(tables).items().select("item_id", "title", "category", pl.col("brand").fill_null(""))
    texts = ["query", "title", "category", "brand"]
    found = distinct_pairs(Tables(tables)).join(items, on="item_id").select(texts).unique().sort(texts)
    if len(found) < count:
        raise SystemExit(f"--pairs {count:,}: the marketplace's log has {len(found):,} different pairs")
    chosen = found.sample(count, shuffle=True, seed=SEED).with_row_index("key")
    return chosen.with_columns(pl.col("key").cast(pl.String).str.zfill(32)).sort("title", "query", "key")
