"""A bundle of a tiny random log, with its samples and encoder, made by the stages' own parts and without Ray."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch

from jobs.distill import _export, _quantise, _save_tokenizer, build_marked_encoder
from jobs.train import build_ranker_from, export_files
from prectr.contracts.model_config import EncoderConfig, ModelConfig
from prectr.core.artifacts import read_manifest, run_stage, write_json
from prectr.features.end_state import online_entries, user_states
from prectr.features.store import write_store
from prectr.labelling.own_teacher.model import quiet_transformers
from prectr.ranking.bundle import file_records
from prectr.ranking.bundle_writer import write_bundle
from prectr.ranking.drift import write_reference
from prectr.relevance.config import DistillConfig
from prectr.relevance.match_features import MATCH_FILE, MatchTable
from prectr.relevance.tokenisation import PairTokeniser, train_wordpiece
from prectr.serving.golden_requests import write_golden
from prectr.training.config import TrainConfig
from prectr.training.ranker_loop import Run
from prectr.training.workers import Workers
from tests.prectr.training.test_ranker_loop import write_samples

ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, vocabulary=80, max_length=16, dropout=0.0)
TRAIN = TrainConfig(epochs=1, batch_size=16, text_batch=8, evaluations_per_epoch=1, precision="float32", cpus=1)


@dataclass(frozen=True)
class World:
    """Where the artifacts lie."""

    samples: Path
    encoder: Path
    bundle: Path


def make_world(laboratory: SimpleNamespace, root: Path, model: ModelConfig, int8: bool = False) -> World:
    """Samples with an online state, an encoder with its ONNX form, and a bundle trained for a moment."""
    world = World(root / "samples", root / "encoder", root / "bundle")
    shown, items, pairs = laboratory.draw_log(3)
    log = laboratory.mine(shown, items, pairs)
    write_samples(laboratory, world.samples)
    users = [user_states(log.context.block(log.rows), log.context)]
    write_store(world.samples / "online", online_entries(users, log.context.tables, log.context))
    titles = pairs.join(items.select("item_id", "title"), on="item_id", maintain_order="left")["title"].to_list()
    publish_encoder(world.encoder, pairs["query"].to_list(), titles, DistillConfig(encoder=ENCODER, int8=int8), items)
    _publish_bundle(world, log.context.tables.path.parent / "preferences", TRAIN.model_copy(update={"model": model}))
    return world


def publish_encoder(
    out: Path, queries: list[str], titles: list[str], config: DistillConfig, items: pl.DataFrame | None = None
) -> None:
    """What `distill` leaves, untrained, of a vocabulary learnt from some pairs, and match features from `items`."""

    def build(staging: Path) -> dict[str, Any]:
        quiet_transformers()
        torch.manual_seed(5)
        tokenizer = train_wordpiece([*titles, *queries], ENCODER.vocabulary)
        _save_tokenizer(tokenizer, staging, config)
        encoder = build_marked_encoder(ENCODER, max(tokenizer.get_vocab_size(), 40))
        with torch.no_grad():  # as vivid as a trained one; a fresh one says nearly the same of every pair
            for matrix in (parameter for parameter in encoder.model.parameters() if parameter.dim() > 1):
                matrix.mul_(20)
        encoder.save(staging)
        catalogue = pl.DataFrame({"title": titles, "category": None, "brand": None}) if items is None else items
        matches = MatchTable.fit(catalogue)
        matches.save(staging / MATCH_FILE)
        _export(staging, config)
        if not config.int8:
            return {}
        tokens = PairTokeniser(tokenizer, ENCODER.max_length).encode(queries, titles)
        data = staging / ".pairs.npz"
        np.savez(
            data,
            values=tokens.values,
            offsets=tokens.offsets,
            query_tokens=tokens.query_tokens,
            match=matches.features(queries, titles),
            gold=np.arange(len(tokens)) % 4,
            is_training=np.arange(len(tokens)) < 5,
        )
        return {"int8": _quantise(staging, data)}

    run_stage("distill", out, config=config, inputs={}, build=build)


def _publish_bundle(world: World, preferences: Path, config: TrainConfig) -> None:
    def build(staging: Path) -> dict[str, Any]:
        work = staging / "work"
        work.mkdir()
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": str(world.samples),
            "encoder": str(world.encoder),
            "out": str(work),
            "build_ranker": build_ranker_from,
            "finish": export_files,
        }
        facts = Run(loop, Workers()).run()
        inputs = {"samples": world.samples, "encoder": world.encoder, "preferences": preferences}
        write_bundle(staging, work, model=config.model, facts=facts, **inputs)
        shutil.rmtree(work)
        write_golden(staging, world.samples)
        write_reference(staging, world.samples)
        return {"metrics": facts["best"], "files": file_records(staging)}

    run_stage("train", world.bundle, config=config, inputs={}, build=build)


def record_files(bundle: Path) -> None:
    """Let the manifest of a bundle that a test changed record its files as they are now."""
    write_json(bundle / "manifest.json", (read_manifest(bundle) or {}) | {"files": file_records(bundle)})
