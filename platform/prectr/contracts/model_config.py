"""Configuration of encoder, rankers and their losses, and the feature sizes they are built for: pydantic only.

No torch here: the command line reads these at start. Marks [paper], [summary], [ours] as in the model specification;
every [ours] choice with a sensible alternative is a switch.
"""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig

LEVELS = 4
"""k, the relevance score levels: 0 irrelevant, 1 weak, 2 relevant, 3 strong [summary]."""

TARGET_FIELDS = ("query", "category", "brand", "price")
BEHAVIOUR_FIELDS = (*TARGET_FIELDS, "level", "clicked", "recency")


class Standardised(FrozenConfig):
    """A column of a group of features: what was measured is value * deviation + mean."""

    column: int = Field(ge=0)
    mean: float
    deviation: float = Field(gt=0)


class RelevanceNumbers(FrozenConfig):
    """Which numbers of a row follow its relevance, so that a row can be imagined with another one."""

    numeric: tuple[int, ...] = Field(description="numeric columns that are a relevance; level heads get it from p only")
    tolerance_slope: tuple[float, ...] = Field(
        description="change of each tolerance column when the relevance (0..1) rises by one"
    )
    predictive: Standardised = Field(description="of tolerance: logarithm of the predictive click probability")
    above: Standardised = Field(description="of tolerance: relevance above the threshold of user and query")
    spread: Standardised = Field(description="of tolerance: standard deviation of the user's threshold")
    curve: tuple[float, float, float] = Field(description="a, s, eps of the click curve")
    query_rate: Standardised = Field(description="of numeric: logarithm of the query's click rate")
    pair_rate: Standardised = Field(description="of numeric: the same of the pair, which backs off to the query's")
    pair_examined: Standardised = Field(description="of numeric: log1p of how often the pair was examined")


class FeatureSizes(FrozenConfig):
    """Widths and cardinalities of `prectr.contracts.types.RankerInputs`; stored with every ranker."""

    categorical: dict[str, int] = Field(description="field -> cardinality, index 0 = unknown")
    numeric: int = Field(ge=0)
    match: int = Field(ge=LEVELS, description="the first 4 are the looked-up level log-probabilities")
    tolerance: int = Field(ge=0)
    query_preference: int = Field(ge=0)
    behaviour: dict[str, int] = Field(description="field -> cardinality, in the order of BEHAVIOUR_FIELDS")
    user_group: int = Field(ge=1)
    text: int = Field(ge=1, description="d, width of the text encoder")
    positions: int = Field(ge=1, description="positions from this one on share one bias")
    relevance: RelevanceNumbers | None = Field(default=None, description="None: no number follows the relevance")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if tuple(self.behaviour) != BEHAVIOUR_FIELDS:
            raise ValueError(
                f"behaviour fields must be {list(BEHAVIOUR_FIELDS)} in this order, got {[*self.behaviour]}"
            )
        if self.behaviour["level"] < LEVELS + 1:
            raise ValueError(f"behaviour.level needs {LEVELS + 1} values (unknown and {LEVELS} levels)")
        if self.relevance and len(self.relevance.tolerance_slope) != self.tolerance:
            raise ValueError(
                f"relevance.tolerance_slope has {len(self.relevance.tolerance_slope)} numbers for {self.tolerance} "
                "tolerance columns"
            )
        return self


class EncoderConfig(FrozenConfig):
    """The distilled student encoder: by default 3 layers and about 1.6 M parameters."""

    architecture: str = Field(default="bert", description="any Hugging Face encoder model type with these attributes")
    layers: int = Field(default=3, ge=1)
    width: int = Field(default=128, ge=1)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=512, ge=1)
    vocabulary: int = Field(default=8192, ge=8, description="largest vocabulary the tokenizer may learn")
    max_length: int = Field(default=48, ge=4, description="L, tokens of `query [SEP] title`")
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class DistillationLossConfig(FrozenConfig):
    """L_enc = a CE + (1 - a) T^2 KL + b MSE of in-query margins [ours]."""

    label_weight: float = Field(default=0.3, ge=0.0, le=1.0, description="a")
    temperature: float = Field(default=2.0, gt=0.0, description="T")
    margin_weight: float = Field(default=0.5, ge=0.0, description="b")


class FusionConfig(FrozenConfig):
    """RSL module and Base module."""

    embedding: int = Field(default=8, ge=1, description="width of a categorical field's embedding")
    hidden: tuple[int, ...] = (128, 64)
    relevance_hidden: tuple[int, ...] = (64,)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    text_width: int = Field(default=8, ge=0, description="h reaches the Base module through so many numbers; 0: not")
    expected_level: bool = Field(default=True, description="the Base module also reads the expected level [ours]")
    prior_click_rate: float = Field(default=0.03, gt=0.0, lt=1.0, description="where every c_i starts [ours]")


class ConsistencyConfig(FrozenConfig):
    """Semantic consistency regularisation [paper, form ours]; a weight of 0 switches its part off."""

    level_weight: float = Field(default=0.1, ge=0.0, description="weight of (A), KL(q_rsl || p)")
    order_weight: float = Field(default=0.1, ge=0.0, description="weight of (B), the order hinge")
    order_margin: float = Field(default=0.0, ge=0.0, description="m, in order_unit")
    order_unit: Literal["probability", "logit"] = "probability"


class IncentiveConfig(FrozenConfig):
    """Personal relevance incentive tau."""

    form: Literal["odds", "level", "off"] = Field(default="odds", description="on the odds, per level, or none")
    combine: Literal["gate", "sum"] = Field(default="gate", description="gate [ours] or r_user + r_query [summary]")
    attention: bool = Field(
        default=False,
        description="prectr-v2 reads S_u and S_q, not only the aggregated numbers; prectr always reads S_u",
    )
    width: int = Field(default=32, ge=1)
    heads: int = Field(default=2, ge=1)
    hidden: int = Field(default=32, ge=1)
    positive_experts: int = Field(default=2, ge=1)
    negative_experts: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class ExposureConfig(FrozenConfig):
    """Relevance exposure debias [paper, form ours]."""

    weight: float = Field(default=0.3, ge=0.0)
    margin: float = Field(default=1.0, ge=0.0, description="m, on logits")
    margin_form: Literal["level", "fixed"] = Field(default="level", description="m (rho+ - rho~), or m")
    fake: Literal["noise", "mix-up"] = Field(default="noise", description="how the fake's text vector is made")
    scale_low: float = Field(default=0.3, ge=0.0, le=1.0)
    scale_high: float = Field(default=1.0, ge=0.0, le=1.0)
    minimum_level: int = Field(default=2, ge=1, le=LEVELS - 1)
    truncation: bool = Field(default=True, description="only positives scored above the running mean CTR count")
    tolerance_gate: bool = Field(default=True, description="weight down users who accept the fake's level anyway")
    consistent: bool = Field(
        default=True, description="the fake's other numbers follow its level, too (`models.fake_numbers`)"
    )
    momentum: float = Field(default=0.01, gt=0.0, le=1.0, description="of the running mean CTR")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale_low > self.scale_high:
            raise ValueError(f"scale_low {self.scale_low} must not exceed scale_high {self.scale_high}")
        return self


class PositionConfig(FrozenConfig):
    """Position bias, shared by all models; serving drops it [ours]."""

    form: Literal["additive", "examination"] = "additive"
    learning_rate_scale: float = Field(
        default=10.0, gt=0.0, description="its few scalars have to travel far in few steps"
    )


class BaselineConfig(FrozenConfig):
    """The baselines of the main table: one set of sizes, so that they are compared alike."""

    hidden: tuple[int, ...] = (128, 64)
    embedding: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    match: bool = Field(default=False, description="also read the match features, looked-up levels included")
    interaction: tuple[int, ...] = Field(
        default=(16, 16), min_length=1, description="xdeepfm: rows of each layer of the interaction network"
    )
    behaviour_width: int = Field(default=32, ge=1, description="din, daian: width of an embedded behaviour")
    attention_hidden: tuple[int, ...] = Field(
        default=(32,), description="hidden widths of din's activation unit, of daian's intent"
    )
    similarity_bins: int = Field(default=5, ge=2, description="daian: bins of similarity to the query")


ModelName = Literal["lr", "dnn", "wide-deep", "deepfm", "xdeepfm", "din", "sukd", "daian", "prectr", "prectr-v2"]
MODELS: tuple[str, ...] = get_args(ModelName)


class ModelConfig(FrozenConfig):
    """One ranker. `preference`, `debias` and `encoder` are prectr-v2's ablations; sukd, too, reads `encoder`."""

    name: ModelName = "prectr-v2"
    preference: bool = Field(default=True, description="cold-start relevance preference mining")
    debias: bool = Field(default=True, description="relevance exposure debias")
    encoder: Literal["tuned", "frozen", "undistilled"] = Field(
        default="tuned",
        description="text encoder trained with clicks or not; undistilled: trained from weights drawn anew",
    )
    fusion: FusionConfig = FusionConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()
    incentive: IncentiveConfig = IncentiveConfig()
    exposure: ExposureConfig = ExposureConfig()
    position: PositionConfig = PositionConfig()
    baseline: BaselineConfig = BaselineConfig()
    table_rate_scale: float = Field(
        default=1.0, gt=0.0, description="learning rate of large id tables over that of the layers"
    )
