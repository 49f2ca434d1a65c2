"""Settings of `train`."""

from typing import Literal

from pydantic import Field

from prectr.configuration import FrozenConfig
from prectr.model_config import ModelConfig


class TrainConfig(FrozenConfig):
    """How a ranker is trained on samples (stage 2: clicks; stage 1 is the distillation of its encoder)."""

    model: ModelConfig = ModelConfig()
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(2048, ge=2)
    """Rows of one step over all workers."""
    learning_rate: float = Field(2e-3, gt=0)
    encoder_scale: float = Field(0.1, gt=0)
    """Encoder and RSL module learn at this share of the rate [ours]."""
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it then falls as a cosine."""
    clip_norm: float = Field(5.0, gt=0)
    evaluations_per_epoch: int = Field(3, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of the encoder. `auto`: bfloat16 on a GPU and where the processor multiplies it in hardware; at the default width
    of 128 the casts and the attention's backward pass cost a CPU more than that saves."""
    text_batch: int = Field(256, ge=1)
    """Pairs the encoder sees at once; pairs of similar length go together."""
    workers: int = Field(1, ge=1)
    cpus: int = Field(2, ge=1)
    """Torch threads of a worker."""
    seed: int = 17
