"""One training step as a module: encode each distinct (query, title) of a batch once, forward, loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput
from prectr.core.ray_train import autocast, in_bfloat16
from prectr.features.load import Samples
from prectr.training.config import TrainConfig


class TrainingStep(nn.Module):
    """Text encoding, forward and loss as one module, so that the data-parallel wrapper covers the whole step.

    Args:
        ranker: the ranker; `prectr.contracts.types` is its contract.
        samples: samples with the tokens of all pairs.
        config: precision and batch size of the encoder.
    """

    def __init__(self, ranker: Any, samples: Samples, config: TrainConfig) -> None:
        super().__init__()
        self.ranker = ranker
        self._samples, self._config = samples, config
        self.ranker.use_short_products(in_bfloat16(config.precision, self.device.type))
        # The vectors of a frozen encoder never change, so each pair is encoded once per run.
        frozen = ranker.uses_text and not ranker.trains_encoder
        self._frozen_text = self._encode_all() if frozen else None

    @property
    def device(self) -> torch.device:
        """Device of the ranker."""
        return next(self.ranker.parameters()).device

    def text(self, pair: Tensor) -> Tensor:
        """Text vectors [B, d] of pairs [B]; each distinct pair is encoded once."""
        if not self.ranker.uses_text:
            return torch.zeros(len(pair), self.ranker.sizes.text, device=self.device)
        if self._frozen_text is not None:
            return self._frozen_text[pair.to(self.device)]
        distinct, inverse = torch.unique(pair, return_inverse=True)
        return self._encode(distinct.numpy())[inverse.to(self.device)]

    def predict(self, inputs: RankerInputs, pair: Tensor) -> RankerOutput:
        """Score rows; `pair` [B] is the pair of each row."""
        output: RankerOutput = self.ranker(self._to_device(inputs), self.text(pair))
        return output

    def train(self, mode: bool = True) -> "TrainingStep":
        """Set the training mode as `nn.Module.train` does, but keep the encoder's dropout off.

        Stage 1 has fitted the encoder, which changes little here, and its dropout masks cost a third of a step on a
        CPU.
        """
        super().train(mode)
        self.ranker.encoder.eval()
        return self

    def forward(self, inputs: RankerInputs, labels: RankerLabels, pair: Tensor) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        text = self.text(pair)
        inputs, labels = self._to_device(inputs), self._to_device(labels)
        losses: dict[str, Tensor] = self.ranker.loss(self.ranker(inputs, text), inputs, text, labels)
        return losses

    def _to_device(self, columns: Any) -> Any:
        if self.device.type == "cpu":
            return columns
        return type(columns)(
            *(column if column is None else column.to(self.device, non_blocking=True) for column in columns)
        )

    def _encode(self, pairs: np.ndarray) -> Tensor:
        order = np.argsort(self._samples.tokens.lengths[pairs], kind="stable")
        parts = []
        with autocast(self._config.precision, self.device.type):  # one context, so weights are cast once
            for start in range(0, len(order), self._config.text_batch):
                tokens = self._samples.tokens.padded(pairs[order[start : start + self._config.text_batch]])
                text, _ = self.ranker.encoder(
                    **{name: torch.from_numpy(array).to(self.device) for name, array in tokens.items()}
                )
                parts.append(text.float())
        inverse = torch.empty(len(order), dtype=torch.int64)
        inverse[torch.from_numpy(order)] = torch.arange(len(order))
        return torch.cat(parts)[inverse.to(self.device)]

    @torch.no_grad()
    def _encode_all(self) -> Tensor:
        self.ranker.encoder.eval()
        return self._encode(np.arange(len(self._samples.tokens)))
