"""Stage 1 of the two-stage training [paper]: the training data and the training loop of the student encoder.

The data are judgments of training queries, teacher labels of all queries that are not held back, and random pairs of
the catalogue, which count as judged irrelevant. The student's classifier later initialises the ranker's relevance head.
Callers pass in the loss and the encoder: this library must not import `models`.
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
from prectr.data.made_pairs import random_negatives
from prectr.data.tables import Tables
from prectr.relevance.tokenisation import MASK, SPECIAL, PairTokens

SEGMENTS = 2
"""Token types 0 and 1 are the segments; type t + `SEGMENTS` marks an exact match in segment t."""


def train_student_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one Ray Train worker (or in-process) and write the best epoch's checkpoint to `config["out"]`.

    Args:
        config: `distill` (a dumped DistillConfig), `data` (.npz of `read_tokens` and labels), `vocabulary` (number of
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
        tokens = read_tokens(data)
        query, gold, teacher, known = (data[name] for name in ("query", "gold", "teacher", "known"))
        train_rows, validation_rows = np.flatnonzero(data["is_training"]), np.flatnonzero(~data["is_training"])
    if encoder.match_head is not None:
        assert tokens.match is not None
        encoder.match_head.standardise(torch.from_numpy(tokens.match[train_rows]).to(device))
    batches = GroupedBatches(
        query[train_rows], tokens.lengths[train_rows], distill["batch_size"], distill["group_size"]
    )

    def logits_of(rows: np.ndarray, marked: np.ndarray, dropout: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Level logits of pairs, and those of the plain head; `marked` says of which pairs the matches are marked."""
        arrays = tokens.padded(rows)
        arrays["token_type_ids"][~marked] %= SEGMENTS
        if dropout:
            # Only token ids are masked; segments and match marks stay.
            hidden = (generator.random(arrays["input_ids"].shape) < dropout) & (arrays["input_ids"] >= len(SPECIAL))
            arrays["input_ids"][hidden] = MASK
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with autocast(distill["precision"], device):
            logits, plain_logits = encoder.both_logits(**inputs)
        return logits.float(), plain_logits.float()

    def validation_logits(head: int, marks: bool) -> torch.Tensor:
        chunks = [ordered[start : start + 512] for start in range(0, len(ordered), 512)]
        with torch.inference_mode():
            return torch.cat([logits_of(rows, np.full(len(rows), marks))[head] for rows in chunks]).cpu()

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    ordered = validation_rows[np.argsort(tokens.lengths[validation_rows], kind="stable")]
    truth = torch.from_numpy(gold[ordered])
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
            labels = [on_device(column[rows]) for column in (gold, teacher, known, query)]
            marked = generator.random(len(rows)) >= (distill["mark_dropout"] if distill["match_marks"] else 1.0)
            logits, plain_logits = logits_of(rows, marked, distill["token_dropout"])
            parts = config["loss"](logits, *labels, config["loss_config"])
            total = parts["total"]
            if encoder.match_head is not None and not marked.all():
                plain = torch.from_numpy(np.flatnonzero(~marked)).to(device)
                of_plain = config["loss"](
                    plain_logits[plain], *(column[plain] for column in labels), config["loss_config"]
                )
                total = total + distill["plain_weight"] * of_plain["total"]
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + float(part.detach()) * len(rows)
        encoder.eval()
        logits = validation_logits(0, marks=distill["match_marks"])
        loss = float(torch.nn.functional.cross_entropy(logits, truth))
        plain_loss = float(torch.nn.functional.cross_entropy(validation_logits(1, marks=False), truth))
        accuracy = float((logits.argmax(1) == truth).float().mean())
        seconds = time.perf_counter() - started
        append_curve(
            curve,
            {
                "epoch": epoch,
                **{f"train_{name}": value / len(train_rows) for name, value in sums.items()},
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                "validation_loss_plain": plain_loss,
                "seconds": round(seconds, 1),
            },
        )
        if loss < best_loss:
            best_loss, best_accuracy, best_epoch = loss, accuracy, epoch
            encoder.save(out)
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


def read_tokens(data: Any) -> PairTokens:
    """Token pairs of a training file: arrays values, offsets, query_tokens and match."""
    return PairTokens(*(data[name] for name in ("values", "offsets", "query_tokens", "match")))


def distillation_pairs(tables: Tables, labels: Path, negatives: float = 0.0, seed: int = 0) -> pl.DataFrame:
    """Collect pairs with a judgment, a teacher label, or both, without those of held-back queries, and random pairs.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`.
        negatives: random pairs for each judged pair (for each labelled one, if the log has no judgments). They are
            neither logged, judged nor labelled, and of grade 0.
        seed: of the random pairs.

    Returns:
        Columns query, item_id, title, grade int8 (-1: unknown), level_0..3 float32 (null: unknown), split (train,
        validation), made (whether the pair is a random one). Validation holds only the judged and random pairs of its
        queries. If the log has no judgments at all, validation holds the labelled pairs of its queries, with the
        teacher's most probable level as their grade.
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
    pairs = pairs.join(splits, on="query", how="left").filter(
        (pl.col("split") == "train") | ((pl.col("split") == "validation") & pl.col("grade").is_not_null())
    )
    of_grade = pairs.filter(pl.col("grade").is_not_null()) if len(gold) else pairs
    drawn = random_negatives(of_grade, pairs, tables, negatives, seed, "student")
    return (
        pl.concat([pairs, drawn.with_columns(made=pl.lit(True))], how="diagonal_relaxed")
        .join(tables.items().select("item_id", "title"), on="item_id", how="inner")
        .with_columns(pl.col("grade").fill_null(-1), pl.col("made").fill_null(False))
        .select("query", "item_id", "title", "grade", *LEVEL_COLUMNS, "split", "made")
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
