"""train: train one ranker on samples with Ray Train, and publish it as a bundle, which is all that serving needs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.options import MODEL, Encoder, Force, Out, Preferences, Samples, command
from prectr.contracts.model_config import ModelConfig
from prectr.core import progress
from prectr.core.artifacts import StageResult, fingerprint, require_artifact, run_stage, stage_identity, write_json
from prectr.core.config import execution_fields
from prectr.core.ray_session import RayConfig, ray_session, require_resources
from prectr.core.ray_train import fit_on_ray
from prectr.features.load import sample_days, split_days
from prectr.features.spec import FeatureSpec
from prectr.ranking.bundle import file_records, require_online_state
from prectr.ranking.bundle_writer import write_bundle
from prectr.ranking.drift import write_reference
from prectr.serving.golden_requests import write_golden
from prectr.training.config import TrainConfig
from prectr.training.ranker_loop import CURVE
from prectr.training.ray_loop import train_ranker
from prectr.training.start import require_start, undefined_figures

EXECUTION = ("workers", *execution_fields(TrainConfig))
"""Settings that may differ between a stopped run and the run that continues it."""


@command("train", shortcuts=MODEL)
def run(
    *,
    samples: Samples,
    encoder: Encoder,
    preferences: Preferences,
    out: Out,
    config: TrainConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Train `config.model` on `samples`, its text encoder starting from `encoder`, and publish the bundle `out`.

    Raises:
        UsageError: an artifact is missing, the samples were built without the online state that a bundle holds, or
            `config.start_from` cannot start a training on them (`prectr.training.start`).
        PrectrError: a feature, score or loss is NaN or infinite, or a worker died more often than `config.restarts`.
    """
    require_artifact(samples, "build-samples")
    require_online_state(samples)
    require_artifact(encoder, "distill")
    require_artifact(preferences, "mine-preferences")
    if config.start_from is not None:
        training_days, _, _ = split_days(sample_days(samples))
        require_start(config.start_from, samples, config.model, training_days)

    inputs: dict[str, Path | str] = {
        "samples": samples,
        "encoder": encoder,
        "preferences": preferences,
    }
    if config.start_from is not None:
        inputs["start_from"] = config.start_from

    def build(staging: Path) -> dict[str, Any]:
        if undefined := undefined_figures(samples):
            progress.say(f"train: {undefined.why}; the state with the smallest log loss is kept")
        work = staging / "work"
        work.mkdir()
        resumable = _resumable(out, config, inputs, force)
        with ray_session(ray_config):
            workers = config.workers if isinstance(config.workers, int) else config.workers[0]
            require_resources("train", config.of_worker, workers=workers)
            facts = fit_on_ray(
                train_ranker,
                {
                    "config": config.model_dump(mode="json"),
                    "samples": str(samples.resolve()),
                    "encoder": str(encoder.resolve()),
                    "out": str(work.resolve()),
                    "build_ranker": build_ranker_from,
                    "finish": export_files,
                },
                name=f"train {config.model.name}",
                storage=work,
                workers=config.workers,
                of_worker=config.of_worker,
                curve=work / CURVE,
                resumable=resumable,
                restarts=config.restarts,
            )
        if facts["debias"] is not None:
            progress.say(f"train: {_told(facts['debias'])}")
        for problem in facts["passed_over"]:  # what a worker prints reaches the user only with -v
            progress.say(f"train: a checkpoint cannot be read, the one before it is used: {problem}")
        write_bundle(
            staging, work, samples=samples, encoder=encoder, preferences=preferences, model=config.model, facts=facts
        )
        shutil.rmtree(work)
        write_golden(staging, samples)
        write_reference(staging, samples)
        _, validation_day, _ = split_days(sample_days(samples))
        return {
            "rows": {"training": facts["rows"]},
            "last_day": str(validation_day),
            "files": file_records(staging),
            "metrics": facts["best"],
            "steps": facts["steps"],
            "debias": facts["debias"],
        }

    return run_stage("train", out, config=config, inputs=inputs, build=build, force=force)


def _told(debias: Mapping[str, Any]) -> str:
    """The measured weight of exposure debias, and why it is that."""
    if "why" in debias:
        return f"no exposure debias, because {debias['why']}"
    tried = "; ".join(
        f"{weight}: candidates {judges['candidates']['gain']:+.4f} (error {judges['candidates']['error']:.4f}), "
        f"clicks {judges['clicks']['gain']:+.6f} (error {judges['clicks']['error']:.6f})"
        for weight, judges in debias["tried"].items()
    )
    chosen = f"exposure debias has weight {debias['weight']}" if debias["weight"] else "no exposure debias"
    return f"{chosen}, by the gains on the validation day ({tried})"


def _resumable(out: Path, config: TrainConfig, inputs: Mapping[str, Path | str], force: bool) -> Path:
    """The directory of this run's checkpoints, removed after success; checkpoints of other runs are removed now.

    Execution settings are no part of a run's identity: it may continue with another number of workers.
    """
    same = config.model_copy(update=dict.fromkeys(EXECUTION))
    identity = stage_identity("train", same, {name: fingerprint(value) for name, value in inputs.items()})
    kept = out.parent / f".{out.name}.training-{identity}"
    for other in out.parent.glob(f".{out.name}.training-*"):
        if other != kept or force:
            shutil.rmtree(other, ignore_errors=True)
    if kept.exists():
        progress.say(f"train: continues from the last checkpoint of a stopped run ({kept})")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def build_ranker_from(config: ModelConfig, spec: FeatureSpec, encoder: Path) -> Any:
    """A ranker whose text encoder is the distilled student; its RSL head starts from the student's head (stage 1).

    With `encoder: undistilled` the encoder has the student's shape and tokenizer, but random weights.
    """
    import torch

    from models.encoder import load_encoder
    from models.registry import build_ranker

    # Torch's fused attention has a slow bfloat16 backward pass on processors: half of the speed of plain products.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    text_encoder = load_encoder(encoder, config.encoder == "undistilled", attention)
    return build_ranker(config, spec.sizes(text_encoder.width), text_encoder)


def export_files(ranker: Any, out: Path) -> None:
    """Write the trained ranker's ONNX files: the ranker, and the encoder where it was tuned with it."""
    import torch

    from models.export import export_encoder, export_ranker

    positions = torch.arange(1, ranker.sizes.positions + 1)
    logits = ranker.position_logit(positions).detach().tolist()
    write_json(out / "position.json", {"form": ranker.config.position.form, "logits": logits})
    (out / "ranker.onnx").write_bytes(export_ranker(ranker, ranker.sizes))
    if ranker.uses_text and ranker.trains_encoder:
        (out / "encoder.onnx").write_bytes(export_encoder(ranker.encoder))
