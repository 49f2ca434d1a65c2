"""One step of a ranker as a module: each distinct (query, title) of a batch encoded once, forward, loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput
from prectr.core.ray_train import autocast, in_bfloat16
from prectr.features.load import Samples
from prectr.training.config import TrainConfig


class TrainingStep(nn.Module):
    """Text, forward and loss as one module, so that data-parallel wrapping sees all of a step."""

    def __init__(self, ranker: Any, samples: Samples, config: TrainConfig) -> None:
        super().__init__()
        self.ranker = ranker
        self._samples, self._config = samples, config
        self.ranker.use_short_products(in_bfloat16(config.precision, self.device.type))
        # A frozen encoder's vectors never change, so each pair is encoded once a run.
        frozen = ranker.uses_text and not ranker.trains_encoder
        self._frozen_text = self._encode_all() if frozen else None

    @property
    def device(self) -> torch.device:
        """Where the ranker is."""
        return next(self.ranker.parameters()).device

    def text(self, pair: Tensor) -> Tensor:
        """Text vectors [B, d] of the rows' pairs; each distinct pair is encoded once."""
        if not self.ranker.uses_text:
            return torch.zeros(len(pair), self.ranker.sizes.text, device=self.device)
        if self._frozen_text is not None:
            return self._frozen_text[pair.to(self.device)]
        distinct, place = torch.unique(pair, return_inverse=True)
        return self._encode(distinct.numpy())[place.to(self.device)]

    def predict(self, inputs: RankerInputs, pair: Tensor) -> RankerOutput:
        """Score rows."""
        output: RankerOutput = self.ranker(self._moved(inputs), self.text(pair))
        return output

    def train(self, mode: bool = True) -> "TrainingStep":
        """As `nn.Module.train`, but the encoder keeps its dropout off: it was fitted in stage 1 and only moves a little
        here, and drawing its masks costs a third of a step on a CPU."""
        super().train(mode)
        self.ranker.encoder.eval()
        return self

    def forward(self, inputs: RankerInputs, labels: RankerLabels, pair: Tensor) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        text = self.text(pair)
        inputs, labels = self._moved(inputs), self._moved(labels)
        losses: dict[str, Tensor] = self.ranker.loss(self.ranker(inputs, text), inputs, text, labels)
        return losses

    def _moved(self, columns: Any) -> Any:
        if self.device.type == "cpu":
            return columns
        return type(columns)(
            *(column if column is None else column.to(self.device, non_blocking=True) for column in columns)
        )

    def _encode(self, pairs: np.ndarray) -> Tensor:
        order = np.argsort(self._samples.tokens.lengths[pairs], kind="stable")
        parts = []
        with autocast(self._config.precision, self.device.type):  # one for all: it keeps the weights it has cast
            for start in range(0, len(order), self._config.text_batch):
                tokens = self._samples.tokens.padded(pairs[order[start : start + self._config.text_batch]])
                text, _ = self.ranker.encoder(
                    **{name: torch.from_numpy(array).to(self.device) for name, array in tokens.items()}
                )
                parts.append(text.float())
        place = torch.empty(len(order), dtype=torch.int64)
        place[torch.from_numpy(order)] = torch.arange(len(order))
        return torch.cat(parts)[place.to(self.device)]

    @torch.no_grad()
    def _encode_all(self) -> Tensor:
        self.ranker.encoder.eval()
        return self._encode(np.arange(len(self._samples.tokens)))
