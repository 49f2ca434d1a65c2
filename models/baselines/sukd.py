"""SuKD, supplementary knowledge distillation (KDD 2022, "Learning Supplementary NLP Features for CTR Prediction in
Sponsored Search"): a light model reads one number from the text, which adds only what the click features lack.

    1  logit y_1 = w_1 . phi + b_1,   phi = hidden layers of MLP_1(x),   x = [embedded fields, numbers]
    2  logit y_2 = MLP_2([phi, u_2]),  u_2 = N(MLP_t(h))      the joint teacher; it also trains the encoder of h
    3  logit y_3 = MLP_3([phi, u_3]),  u_3 = w_s . h + b_s    the student: BCE + (u_3 - u_2)^2 + KL(y_2 || y_3)
    4  logit y = MLP([x', u_3])                               the final model; x' has its own field embeddings

    L = BCE(y) + BCE(y_1) + BCE(y_2) + BCE(y_3) + (u_3 - u_2)^2 + KL(y_2 || y_3)

The steps are the recipe of the paper [summary]. These points are ours and differ from the paper:
- One run instead of four. Each step reads earlier steps through a stop-gradient (phi in 2 and 3; h, u_2 and y_2 in 3;
  u_3 in 4). No step changes an earlier one, the steps share only the position bias, and the sum needs no weights. A
  step follows steps that still train, but it gets all batches and the whole learning rate schedule, as every other
  model does. Four phases in one run would leave the final network the last quarter of both.
- The heavy and the light model are two heads of the distilled encoder. The encoder runs anyway, so the student saves no
  time here. With `encoder: frozen` the teacher trains its head only.
- The text contributes one number, and the three terms of step 3 have equal weights. N standardises u_2 over the batch.
  MLP_2 can undo that, so nothing is lost. Without N, u_2 drifted away from the student; bounded by a tanh, it saturated
  and was the same for every text.

| symbol | variable | shape |
|---|---|---|
| h | text | [B, d] |
| phi | click_features | [B, H] |
| u_2, u_3 | heavy, light | [B, 1] |
| MLP_1 .. MLP_3, MLP | plain, teacher, student, deep | |
| MLP_t; w_s, b_s | heavy_language, light_language | |
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.common import baseline_output, numbers_of, numbers_width, start_at_prior
from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import feed_forward
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


class Sukd(Ranker):
    """The SuKD baseline."""

    reads_behaviours = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=config.encoder != "frozen")
        self.settings = config.baseline
        hidden, dropout = self.settings.hidden, self.settings.dropout
        cardinalities = list(sizes.categorical.values())
        width = len(cardinalities) * self.settings.embedding + numbers_width(self.settings, sizes)
        click_width = hidden[-1] if hidden else width
        self.plain_fields = FieldEmbeddings(cardinalities, self.settings.embedding)
        self.plain = feed_forward(width, hidden, 1, dropout)
        self.heavy_language = feed_forward(sizes.text, hidden, 1, dropout)
        self.teacher = feed_forward(click_width + 1, hidden[-1:], 1, dropout)
        self.light_language = nn.Linear(sizes.text, 1)
        self.student = feed_forward(click_width + 1, hidden[-1:], 1, dropout)
        self.fields = FieldEmbeddings(cardinalities, self.settings.embedding)
        self.deep = feed_forward(width + 1, hidden, 1, dropout)
        for network in (self.plain, self.teacher, self.student, self.deep):
            last = network[-1]
            assert isinstance(last, nn.Linear)
            start_at_prior(last, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows with step 4."""
        light = self.light_language(text).detach()
        parts = [self.fields(inputs.categorical), numbers_of(self.settings, inputs), light]
        return baseline_output(self.deep(torch.cat(parts, -1)).squeeze(-1), inputs)

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """Add the losses of steps 1 to 3: `plain`, `teacher`, `student`, `language` (u) and `agreement` (KL)."""
        parts = super().loss(output, inputs, text, labels)
        x = torch.cat([self.plain_fields(inputs.categorical), numbers_of(self.settings, inputs)], -1)
        click_features = self.plain[:-1](x)
        plain_logit = self.plain[-1](click_features).squeeze(-1)
        click_features = click_features.detach()
        heavy = standardised(self.heavy_language(text if self.trains_encoder else text.detach()))
        teacher_logit = self.teacher(torch.cat([click_features, heavy], -1)).squeeze(-1)
        light = self.light_language(text.detach())
        student_logit = self.student(torch.cat([click_features, light], -1)).squeeze(-1)
        parts |= {
            "plain": self._click(plain_logit, labels),
            "teacher": self._click(teacher_logit, labels),
            "student": self._click(student_logit, labels),
            "language": functional.mse_loss(light, heavy.detach()),
            "agreement": click_divergence(teacher_logit.detach(), student_logit),
        }
        steps = ("plain", "teacher", "student", "language", "agreement")
        return {**parts, "total": parts["click"] + sum(parts[step] for step in steps)}

    def _click(self, logit: Tensor, labels: RankerLabels) -> Tensor:
        return functional.binary_cross_entropy_with_logits(self.with_position(logit, labels.position), labels.click)


def standardised(column: Tensor) -> Tensor:
    """N: mean 0 and standard deviation 1 over the batch, 0 for a single row: [B, 1] -> [B, 1]."""
    deviation = column - column.mean()
    return deviation * (deviation.square().mean() + 1e-5).rsqrt()


def click_divergence(teacher_logit: Tensor, logit: Tensor) -> Tensor:
    """Mean KL(sigmoid(teacher_logit) || sigmoid(logit)) of click probabilities: two [B] -> []."""
    probability = teacher_logit.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(teacher_logit, probability)
    return functional.binary_cross_entropy_with_logits(logit, probability) - entropy
