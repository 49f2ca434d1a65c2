"""Stage 1 of the two-stage training [paper]: the training data and the training loop of the student encoder.

The data are judgments of training queries, and teacher labels of all queries that are not held back. The student's
classifier later initialises the ranker's relevance head. Callers pass in the loss and the encoder: this library must
not import `models`.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.dealing import deal
from prectr.core.ray_train import append_curve, autocast
from prectr.data.judgments import read_judged, split_frame
from prectr.data.tables import Tables
from prectr.relevance.tokenisation import MASK, SPECIAL, PairTokens

SEGMENTS = 2
"""Token types 0 and 1 are the segments; type t + `SEGMENTS` marks an exact match in segment t."""


def train_student_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one Ray Train worker (or in-process) and write the best epoch's checkpoint to `config["out"]`.

    Args:
        config: `distill` (a dumped DistillConfig), `data` (.npz of token pairs and labels), `vocabulary` (number of
            tokens), `out` and `curve` (paths), and from `models` the functions `build_encoder` and `loss` with
            `encoder_config` and `loss_config`.

    Returns:
        seconds, epochs, best_epoch, validation_loss, validation_accuracy, parameters.
    """
    import torch

    distill, out, curve = config["distill"], Path(config["out"]), Path(config["curve"])
    curve.unlink(missing_ok=True)  # left by a worker that died
    torch.manual_seed(distill["seed"])
    generator = np.random.default_rng(distill["seed"])
    device = "cuda" if distill["gpus"] and torch.cuda.is_available() else "cpu"
    encoder = config["build_encoder"](config["encoder_config"], config["vocabulary"]).to(device)
    with np.load(config["data"]) as data:
        tokens = PairTokens(data["values"], data["offsets"], data["query_tokens"])
        query, gold, teacher, known = (data[name] for name in ("query", "gold", "teacher", "known"))
        train_rows, validation_rows = np.flatnonzero(data["is_training"]), np.flatnonzero(~data["is_training"])
    batches = GroupedBatches(
        query[train_rows], tokens.lengths[train_rows], distill["batch_size"], distill["group_size"]
    )

    def logits_of(rows: np.ndarray, dropout: float = 0.0) -> torch.Tensor:
        arrays = tokens.padded(rows)
        if not distill["match_marks"]:
            arrays["token_type_ids"] %= SEGMENTS
        if dropout:
            # Only token ids are masked; segments and match marks stay.
            hidden = (generator.random(arrays["input_ids"].shape) < dropout) & (arrays["input_ids"] >= len(SPECIAL))
            arrays["input_ids"][hidden] = MASK
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with autocast(distill["precision"], device):
            return encoder(**inputs)[1].float()

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    steps_per_epoch = math.ceil(len(train_rows) / distill["batch_size"])
    optimizer = torch.optim.AdamW(
        encoder.parameters(), lr=distill["learning_rate"], weight_decay=distill["weight_decay"], betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=distill["learning_rate"],
        total_steps=steps_per_epoch * distill["epochs"] + 1,
        pct_start=distill["warm_up"],
        cycle_momentum=False,
    )
    best_loss, best_accuracy, best_epoch, epoch, started = math.inf, 0.0, 0, 0, time.perf_counter()
    for epoch in range(1, distill["epochs"] + 1):
        encoder.train()
        sums: dict[str, float] = {}
        for batch in batches.epoch(generator):
            rows = train_rows[batch]
            parts = config["loss"](
                logits_of(rows, distill["token_dropout"]),
                on_device(gold[rows]),
                on_device(teacher[rows]),
                on_device(known[rows]),
                on_device(query[rows]),
                config["loss_config"],
            )
            optimizer.zero_grad(set_to_none=True)
            parts["total"].backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + float(part.detach()) * len(rows)
        encoder.eval()
        with torch.inference_mode():
            ordered = validation_rows[np.argsort(tokens.lengths[validation_rows], kind="stable")]
            chunks = [ordered[start : start + 512] for start in range(0, len(ordered), 512)]
            logits = torch.cat([logits_of(rows) for rows in chunks]).cpu()
            truth = torch.from_numpy(gold[ordered])
            loss = float(torch.nn.functional.cross_entropy(logits, truth))
            accuracy = float((logits.argmax(1) == truth).float().mean())
        seconds = time.perf_counter() - started
        append_curve(
            curve,
            {
                "epoch": epoch,
                **{f"train_{name}": value / len(train_rows) for name, value in sums.items()},
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                "seconds": round(seconds, 1),
            },
        )
        if loss < best_loss:
            best_loss, best_accuracy, best_epoch = loss, accuracy, epoch
            encoder.model.save_pretrained(out)
        if epoch - best_epoch >= distill["patience"] or seconds > distill["max_seconds"]:
            break
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "epochs": epoch,
        "best_epoch": best_epoch,
        "validation_loss": round(best_loss, 4),
        "validation_accuracy": round(best_accuracy, 4),
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
    }


def distillation_pairs(tables: Tables, labels: Path) -> pl.DataFrame:
    """Collect pairs with a judgment, a teacher label, or both, without those of held-back queries.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`.

    Returns:
        Columns query, item_id, title, grade int8 (-1: unknown), level_0..3 float32 (null: unknown), split (train,
        validation). Validation holds only the judged pairs of its queries. If the log has no judgments at all,
        validation holds the labelled pairs of its queries, with the teacher's most probable level as their grade.
    """
    gold = read_judged(tables).select("query", "item_id", "grade")
    teacher = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
    pairs = gold.join(teacher, on=["query", "item_id"], how="full", coalesce=True)
    splits = split_frame(pairs["query"])
    if gold.is_empty():
        teacher_grade = pl.concat_list(LEVEL_COLUMNS).list.arg_max().cast(pl.Int8)
        pairs = pairs.join(splits.filter(pl.col("split") == "validation"), on="query", how="left").select(
            pl.exclude("split", "grade"), pl.when(pl.col("split").is_not_null()).then(teacher_grade).alias("grade")
        )
    return (
        pairs.join(splits, on="query", how="left")
        .filter((pl.col("split") == "train") | ((pl.col("split") == "validation") & pl.col("grade").is_not_null()))
        .join(tables.items().select("item_id", "title"), on="item_id", how="inner")
        .with_columns(pl.col("grade").fill_null(-1))
        .select("query", "item_id", "title", "grade", *LEVEL_COLUMNS, "split")
        .sort("query", "item_id")
    )


@dataclass(frozen=True)
class GroupedBatches:
    """Batches in which pairs of one query are together (for the margin loss) and lengths are similar.

    In each epoch the pairs of a query are shuffled and cut into groups of at most `group_size`. Groups are shuffled,
    sorted by their longest pair inside chunks of eight batches, and packed into batches.

    Attributes:
        query: int [n], the query of each pair.
        lengths: int [n], tokens of each pair.
        batch_size: pairs of a batch.
        group_size: pairs of one query in a group, at most.
    """

    query: np.ndarray
    lengths: np.ndarray
    batch_size: int
    group_size: int

    def epoch(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Draw the batches of one epoch: arrays of row numbers, every row once."""
        rows, group = deal(self.query, self.group_size, generator)
        longest = np.zeros(group[-1] + 1, np.int64)
        np.maximum.at(longest, group, self.lengths[rows])
        position = generator.permutation(len(longest))
        groups_per_chunk = 8 * max(1, self.batch_size // self.group_size)
        order = np.lexsort((longest, position // groups_per_chunk))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        packed = rows[np.argsort(rank[group], kind="stable")]
        batches = [packed[start : start + self.batch_size] for start in range(0, len(packed), self.batch_size)]
        return [batches[index] for index in generator.permutation(len(batches))]
