"""export: write a distilled encoder as an ordinary checkpoint, which other libraries read without our code.

The plain checkpoint scores query and title alone, without match features and match marks, and knows less about equal
words than the encoder itself. It is a Hugging Face sequence classification model with its tokenizer, and also holds the
files that `prectr.relevance.encoder_session` reads.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Force, Out, command
from prectr.core.artifacts import StageResult, require_artifact, run_stage, write_json
from prectr.core.config import FrozenConfig
from prectr.core.errors import UsageError
from prectr.relevance.encoder_session import ONNX_FILE, SETTINGS_FILE
from prectr.relevance.match_features import MATCH_FILE
from prectr.relevance.tokenisation import TOKENIZER_FILE


class _ExportConfig(FrozenConfig):
    """What is exported."""

    plain: bool
    """Without match features and match marks."""


@command("export")
def run(
    *,
    encoder: Annotated[Path, typer.Argument(help="Artifact of distill.", **PATH)],
    out: Out,
    plain: Annotated[bool, typer.Option("--plain", help="Without match features and match marks.")] = False,
    force: Force = False,
) -> StageResult:
    """Write the plain head of `encoder`, and the model below it, as a checkpoint at `out`.

    Raises:
        UsageError: no encoder there, or `plain` is not set; there is no other form.
    """
    if not plain:
        raise UsageError("prectr export writes plain checkpoints: give --plain.")
    require_artifact(encoder, "distill")

    def build(staging: Path) -> dict[str, Any]:
        return _write(encoder, staging)

    inputs: dict[str, Path | str] = {"encoder": encoder}
    return run_stage("export", out, config=_ExportConfig(plain=plain), inputs=inputs, build=build, force=force)


def _write(encoder: Path, staging: Path) -> dict[str, Any]:
    from models.encoder import load_encoder
    from models.export import export_encoder
    from prectr.labelling.own_teacher.model import quiet_transformers

    quiet_transformers()
    model = load_encoder(encoder).eval()
    settings = json.loads((encoder / SETTINGS_FILE).read_text(encoding="utf-8"))
    model.match_head = None
    model.forget_marks()
    model.save(staging)
    for name in (TOKENIZER_FILE, "tokenizer_config.json", MATCH_FILE):
        shutil.copy2(encoder / name, staging / name)
    (staging / ONNX_FILE).write_bytes(export_encoder(model))
    write_json(staging / SETTINGS_FILE, settings | {"width": model.width})
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}
