"""`distill`: train the student encoder on teacher labels and gold, and export it to ONNX for scoring and serving.

The artifact is a Hugging Face checkpoint with its tokenizer and match head, plus `relevance.onnx`, `relevance.json` and
`match.parquet`, which with the tokenizer are all that scoring needs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jobs.options import Force, Labels, Out, TablesIn, command
from prectr.contracts.model_config import EncoderConfig
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core import progress
from prectr.core.artifacts import StageResult, require_artifact, run_stage, write_json
from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_session import RayConfig, ray_session, require_resources
from prectr.data.tables import Tables
from prectr.relevance.config import DistillConfig
from prectr.relevance.distillation import distillation_pairs
from prectr.relevance.match_features import MATCH_FEATURES, MATCH_FILE, MatchTable


@command("distill")
def run(
    *,
    tables: TablesIn,
    labels: Labels,
    out: Out,
    config: DistillConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Distil the labels of `labels` on `tables` into the encoder artifact `out`."""
    log = Tables(tables)
    require_artifact(labels, "label")

    def build(staging: Path) -> dict[str, Any]:
        return _build(log, labels, staging, config, ray_config)

    inputs: dict[str, Path | str] = {"tables": tables, "labels": labels}
    return run_stage("distill", out, config=config, inputs=inputs, build=build, force=force)


def _build(
    tables: Tables, labels: Path, staging: Path, config: DistillConfig, ray_config: RayConfig | None
) -> dict[str, Any]:
    from models.distillation import distillation_loss
    from prectr.core.ray_train import fit_on_ray
    from prectr.labelling.own_teacher.model import quiet_transformers
    from prectr.relevance.distillation import train_student_loop

    quiet_transformers()
    pairs = distillation_pairs(tables, labels, config.negatives, config.seed)
    training = (pairs["split"] == "train").to_numpy()
    if not training.any() or training.all():
        raise PrectrError(
            f"{tables}: {training.sum()} training and {(~training).sum()} validation pairs are too few to distil; "
            "add judgments of more queries or raise selection.budget."
        )
    tokenizer, vocabulary = _train_tokenizer(tables, pairs, staging, config)
    data = staging / ".training.npz"
    matches = MatchTable.fit(tables.items())
    matches.save(staging / MATCH_FILE)
    _write_training_data(pairs, training, tokenizer, matches, data, config)
    gold, taught = (pairs["grade"] >= 0).to_numpy(), pairs["level_0"].is_not_null()
    rows = {
        "training": int(training.sum()),
        "validation": int((~training).sum()),
        "training_gold": int((gold & training).sum()),
        "training_teacher": int((taught.to_numpy() & training).sum()),
        "training_random": int((pairs["made"].to_numpy() & training).sum()),
    }
    progress.say(
        f"distill: {rows['training']:,} training pairs ({rows['training_gold'] - rows['training_random']:,} judged, "
        f"{rows['training_random']:,} random, {rows['training_teacher']:,} taught), {rows['validation']:,} validation "
        "pairs"
    )
    curve = staging / "curve.jsonl"
    loop_config = {
        "distill": config.model_dump(mode="json"),
        "data": str(data.resolve()),
        "vocabulary": vocabulary,
        "out": str(staging.resolve()),
        "curve": str(curve.resolve()),
        "build_encoder": build_marked_encoder,
        "encoder_config": config.encoder,
        "loss": distillation_loss,
        "loss_config": config.loss,
    }
    with ray_session(ray_config):
        require_resources("distill", config.of_worker)
        metrics = fit_on_ray(
            train_student_loop,
            loop_config,
            name="distill",
            storage=staging,
            of_worker=config.of_worker,
            curve=curve,
        )
    facts = {"rows": rows, "metrics": metrics, "vocabulary": vocabulary}
    if config.calibrate:
        facts["calibration"] = _calibrate(staging, tables, pairs, matches, data, config)
    _export(staging, config)
    if config.int8:
        facts["int8"] = _quantise(staging, data)
    data.unlink()
    return facts


def build_marked_encoder(config: EncoderConfig, vocabulary: int) -> Any:
    """A fresh `TextEncoder` that reads match features and whose token types also mark exact matches.

    See `prectr.relevance.tokenisation` for the token types.
    """
    from torch import nn

    from models.encoder import build_encoder
    from prectr.relevance.tokenisation import TOKEN_TYPES

    encoder = build_encoder(config, vocabulary, len(MATCH_FEATURES))
    embeddings = getattr(encoder.model.base_model, "embeddings", None)
    if embeddings is None or getattr(embeddings, "token_type_embeddings", None) is None:
        raise UsageError(
            f"encoder.architecture '{config.architecture}' has no token types, which mark query and title; use 'bert'."
        )
    embeddings.token_type_embeddings = nn.Embedding(TOKEN_TYPES, config.width)
    nn.init.normal_(embeddings.token_type_embeddings.weight, std=encoder.model.config.initializer_range)
    encoder.model.config.type_vocab_size = TOKEN_TYPES
    return encoder


def _train_tokenizer(tables: Tables, pairs: pl.DataFrame, staging: Path, config: DistillConfig) -> tuple[Any, int]:
    """Train a tokenizer on the titles of the catalogue and the queries of training pairs, and save it."""
    from prectr.relevance.tokenisation import train_wordpiece

    queries = pairs.filter(pl.col("split") == "train")["query"].unique().sort().to_list()
    tokenizer = train_wordpiece([*tables.items()["title"].to_list(), *queries], config.encoder.vocabulary)
    _save_tokenizer(tokenizer, staging, config)
    return tokenizer, tokenizer.get_vocab_size()


def _save_tokenizer(tokenizer: Any, staging: Path, config: DistillConfig) -> None:
    """Save a tokenizer for AutoTokenizer; called with a query and a title it gives the student's input."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(names, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.encoder.max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    ).save_pretrained(staging)


def _write_training_data(
    pairs: pl.DataFrame,
    training: np.ndarray,
    tokenizer: Any,
    matches: MatchTable,
    file: Path,
    config: DistillConfig,
) -> None:
    """Tokenise every pair and write the arrays that the training worker reads."""
    from prectr.relevance.tokenisation import PairTokeniser

    queries, titles = pairs["query"].to_list(), pairs["title"].to_list()
    tokens = PairTokeniser(tokenizer, config.encoder.max_length).encode(queries, titles)
    np.savez(
        file,
        values=tokens.values,
        offsets=tokens.offsets,
        query_tokens=tokens.query_tokens,
        match=matches.features(queries, titles),
        query=pairs["query"].rank("dense").to_numpy().astype(np.int64),
        gold=pairs["grade"].to_numpy().astype(np.int64),
        teacher=pairs.select(pl.col(LEVEL_COLUMNS).fill_null(0.25)).to_numpy().astype(np.float32),
        known=pairs["level_0"].is_not_null().to_numpy(),
        is_training=training,
    )


def _calibrate(
    staging: Path, tables: Tables, pairs: pl.DataFrame, matches: MatchTable, data: Path, config: DistillConfig
) -> dict[str, Any]:
    """Calibrate both heads of the trained encoder in place; returns the facts for the manifest."""
    from models.encoder import load_encoder
    from prectr.relevance.calibration import calibrate_heads, candidates_like_judged
    from prectr.relevance.distillation import read_tokens

    with np.load(data) as held:
        tokens, gold, rows = read_tokens(held), held["gold"], np.flatnonzero(~held["is_training"])
    assert tokens.match is not None
    made = pairs["made"].to_numpy()
    judged, random = tokens.match[(gold >= 0) & ~made], tokens.match[made]
    found, candidates = candidates_like_judged(tables, judged, random, matches, config.seed)
    share = 1 - float(made[rows].mean()) if found is None else found
    encoder = load_encoder(staging)
    facts = calibrate_heads(encoder, tokens, rows, gold[rows], made[rows], share, config.match_marks)
    encoder.save(staging)
    return {"candidates": candidates, "like_judged": round(share, 4), **facts}


def _export(staging: Path, config: DistillConfig) -> None:
    from models.encoder import load_encoder
    from models.export import export_encoder
    from prectr.relevance.encoder_session import ONNX_FILE, SETTINGS_FILE

    encoder = load_encoder(staging).eval()
    if not config.match_marks:
        encoder.forget_marks()
        encoder.save(staging)
    (staging / ONNX_FILE).write_bytes(export_encoder(encoder))
    write_json(staging / SETTINGS_FILE, {"max_length": config.encoder.max_length, "width": encoder.width})


def _quantise(staging: Path, data: Path) -> dict[str, Any]:
    """Write the int8 form; returns its cost on the validation pairs."""
    from prectr.relevance.distillation import read_tokens
    from prectr.relevance.encoder_session import INT8_FILE, ONNX_FILE
    from prectr.relevance.quantisation import encoder_figures, quantise

    quantise(staging / ONNX_FILE, staging / INT8_FILE)
    with np.load(data) as held:
        rows = np.flatnonzero(~held["is_training"])
        figures = encoder_figures(staging, read_tokens(held), rows, held["gold"][rows])
    losses = (figures[form]["validation_loss"] for form in ("float32", "int8"))
    progress.say("distill: validation loss {:.4f} in float32, {:.4f} in int8".format(*losses))
    return figures
