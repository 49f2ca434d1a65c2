"""Configuration of the encoder, the rankers and their losses, and the feature sizes that rankers are built for.

Pydantic only: the command line imports these classes at start, so torch must not be imported here. Marks [paper],
[summary] and [ours] are explained in docs/model.md; every [ours] choice with a sensible alternative is a switch.
"""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig

LEVELS = 4
"""k, the relevance score levels: 0 irrelevant, 1 weak, 2 relevant, 3 strong [summary]."""

TARGET_FIELDS = ("query", "category", "brand", "price")
"""Fields that describe the row to score, in the order of `RankerInputs.target`. `query` is 0, unknown, unless
`samples.query_buckets` gives queries ids."""
BEHAVIOUR_FIELDS = (*TARGET_FIELDS, "level", "clicked", "recency")
"""Fields of each behaviour in a history; the query's history has the user group as one more field."""


class Standardised(FrozenConfig):
    """A standardised column of a feature group: measured value = stored value * deviation + mean."""

    column: int = Field(ge=0)
    """Index of the column in its feature group."""
    mean: float
    """Mean of the measured values."""
    deviation: float = Field(gt=0)
    """Standard deviation of the measured values."""


class Flag(FrozenConfig):
    """A standardised column that is 0 or 1."""

    column: int = Field(ge=0)
    """Index of the column in its feature group."""
    middle: float
    """Stored values above this one are 1."""


class RelevanceNumbers(FrozenConfig):
    """The columns of a row that depend on its relevance, and how, so that the row can be given another relevance."""

    judged: Flag
    """Column of `numeric`: whether the looked-up levels are a judgment."""
    taught: Flag
    """Column of `numeric`: whether they are the teacher's label. They are the encoder's score if neither flag is 1."""

    numeric: tuple[int, ...]
    """Columns of `numeric` that state a relevance. Level heads do not read them: they get relevance through p only."""
    tolerance_slope: tuple[float, ...]
    """Change of each column of `tolerance` when the relevance (0..1) rises by one."""
    predictive: Standardised
    """Column of `tolerance`: logarithm of the predictive click probability."""
    above: Standardised
    """Column of `tolerance`: relevance minus the threshold of user and query."""
    spread: Standardised
    """Column of `tolerance`: standard deviation of the user's threshold."""
    curve: tuple[float, float, float]
    """Parameters a, s, eps of the click curve."""
    query_rate: Standardised
    """Column of `numeric`: logarithm of the query's click rate."""
    pair_rate: Standardised
    """Column of `numeric`: logarithm of the pair's click rate, which backs off to the query's."""
    pair_examined: Standardised
    """Column of `numeric`: log1p of how often the pair was examined."""


class FeatureSizes(FrozenConfig):
    """Widths and cardinalities of `prectr.contracts.types.RankerInputs`; stored with every ranker."""

    categorical: dict[str, int]
    """Categorical field -> number of ids; id 0 means unknown."""
    numeric: int = Field(ge=0)
    """Number of numeric features."""
    match: int = Field(ge=LEVELS)
    """Number of match features; the first 4 are the log-probabilities of the looked-up levels."""
    tolerance: int = Field(ge=0)
    """Number of tolerance features."""
    query_preference: int = Field(ge=0)
    """Number of features of the query's preference."""
    behaviour: dict[str, int]
    """Behaviour field -> number of ids, in the order of `BEHAVIOUR_FIELDS`; id 0 means unknown."""
    user_group: int = Field(ge=1)
    """Number of user groups."""
    text: int = Field(ge=1)
    """d, width of the text encoder's vectors."""
    positions: int = Field(ge=1)
    """Positions with a bias of their own. All later positions share the bias of the last one."""
    relevance: RelevanceNumbers | None = None
    """The columns that depend on relevance; None: none does."""

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
    """The distilled student encoder of query and title; by default 3 layers and about 1.6 M parameters."""

    architecture: str = "bert"
    """Hugging Face model type of the encoder, e.g. bert. Its configuration must have BERT's attributes."""
    layers: int = Field(default=3, ge=1)
    """Transformer layers."""
    width: int = Field(default=128, ge=1)
    """Width of token and text vectors; a multiple of `heads`."""
    heads: int = Field(default=4, ge=1)
    """Attention heads of each layer."""
    feed_forward: int = Field(default=512, ge=1)
    """Hidden width of each layer's feed-forward network."""
    vocabulary: int = Field(default=8192, ge=8)
    """Most tokens that the tokenizer may learn. A larger vocabulary splits fewer words but needs more parameters."""
    match_width: int = Field(default=32, ge=0)
    """Hidden units over the match features of query and title, which the classifier reads beside the text vector. 0:
    it reads the text vector only."""
    max_length: int = Field(default=48, ge=4)
    """L, most tokens of `query [SEP] title`; longer texts are cut."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Dropout probability in training."""

    @property
    def text_width(self) -> int:
        """d, width of the vectors that rankers read: the encoder's, and the units over match features."""
        return self.width + self.match_width

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class DistillationLossConfig(FrozenConfig):
    """Loss of distillation: L_enc = a CE + (1 - a) T^2 KL + b MSE of in-query margins [ours]."""

    label_weight: float = Field(default=0.3, ge=0.0, le=1.0)
    """Weight a of the cross-entropy with judged grades; the divergence from the teacher gets 1 - a."""
    temperature: float = Field(default=2.0, gt=0.0)
    """T, softmax temperature of teacher and student. A higher one emphasises the less likely levels."""
    margin_weight: float = Field(default=0.5, ge=0.0)
    """Weight b of the squared error of score differences between items of one query."""


class FusionConfig(FrozenConfig):
    """The relevance score level (RSL) module and the Base module, which gives a click probability for each level."""

    embedding: int = Field(default=8, ge=1)
    """Width of each categorical field's embedding."""
    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers of the Base module."""
    relevance_hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the RSL module."""
    trust: tuple[float, float, float] = (1.0, 0.5, 0.5)
    """Trust at the start of training in looked-up levels that are a judgment, a teacher's label and the encoder's
    score; the student's head has the rest of the weight [ours]. With 1 everywhere it gets no gradient."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout probability of both modules in training."""
    text_width: int = Field(default=8, ge=0)
    """Width to which the text vector h is projected for the Base module; 0: the Base module does not read it."""
    expected_level: bool = True
    """Whether the Base module also reads the expected level [ours]."""
    prior_click_rate: float = Field(default=0.03, gt=0.0, lt=1.0)
    """Click probability of every level at the start of training [ours]."""


class ConsistencyConfig(FrozenConfig):
    """Semantic consistency regularisation [paper, form ours]. A weight of 0 switches its term off."""

    level_weight: float = Field(default=0.1, ge=0.0)
    """Weight of term (A), the divergence KL(q_rsl || p) between label and predicted level distribution."""
    order_weight: float = Field(default=0.1, ge=0.0)
    """Weight of term (B), a hinge that makes click probability rise with the level."""
    order_margin: float = Field(default=0.0, ge=0.0)
    """Margin m: least difference between neighbouring levels that term (B) does not penalise, in `order_unit`."""
    order_unit: Literal["probability", "logit"] = "probability"
    """Scale on which term (B) compares neighbouring levels: click probability or its logit."""


class IncentiveConfig(FrozenConfig):
    """Personal relevance incentive tau, computed from the histories of user and query."""

    form: Literal["odds", "level", "off"] = "odds"
    """With odds, one tau is added to the click logit. level: one tau is added to each level's click logit. off:
    no tau."""
    combine: Literal["gate", "sum"] = "gate"
    """How the user's and the query's side are combined: by a learned gate [ours], or as r_user + r_query [summary]."""
    attention: bool = False
    """Whether prectr-v2 reads the behaviours S_u and S_q besides aggregated numbers; prectr always reads S_u."""
    width: int = Field(default=32, ge=1)
    """Width of behaviour tokens and target; a multiple of `heads`."""
    heads: int = Field(default=2, ge=1)
    """Attention heads over a behaviour sequence."""
    hidden: int = Field(default=32, ge=1)
    """Hidden width of each expert."""
    positive_experts: int = Field(default=2, ge=1)
    """Number of experts that raise tau."""
    negative_experts: int = Field(default=2, ge=1)
    """Number of experts that lower tau."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class ExposureConfig(FrozenConfig):
    """Relevance exposure debias [paper, form ours]: clicked rows must score above fake copies of lower relevance."""

    weight: float | None = Field(default=None, ge=0.0)
    """Weight of the term in the loss; 0 switches it off. Null: `train` compares weights on the validation day, by
    looked-up levels of unexposed candidates and by clicks, and takes 0 where nothing shows a gain."""
    margin: float = Field(default=1.0, ge=0.0)
    """Margin m: logits by which a clicked row must score above its fake."""
    margin_form: Literal["level", "fixed"] = "level"
    """With level, the margin is m (rho+ - rho~), proportional to the difference in relevance. fixed: it is m."""
    fake: Literal["noise", "mix-up"] = "noise"
    """How the fake's text vector is made: noise is added, or another row's vector is mixed in."""
    scale_low: float = Field(default=0.3, ge=0.0, le=1.0)
    """Least strength s of the change that makes the fake; a larger s also lowers the fake's level more."""
    scale_high: float = Field(default=1.0, ge=0.0, le=1.0)
    """Greatest strength s of the change that makes the fake; at least `scale_low`."""
    minimum_level: int = Field(default=2, ge=1, le=LEVELS - 1)
    """Least relevance level of the clicked rows that get a fake."""
    truncation: bool = True
    """Whether to use only clicked rows whose predicted click probability exceeds the running mean click rate."""
    tolerance_gate: bool = True
    """Whether to lower the weight of users who, by the model's estimate, accept the fake's level anyway."""
    consistent: bool = True
    """Whether the fake's other features also follow its lower level (`models.debias`)."""
    momentum: float = Field(default=0.01, gt=0.0, le=1.0)
    """Share of each new batch in the running mean click rate."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale_low > self.scale_high:
            raise ValueError(f"scale_low {self.scale_low} must not exceed scale_high {self.scale_high}")
        return self


class PositionConfig(FrozenConfig):
    """Position bias, the same for all models; serving leaves it out [ours]."""

    form: Literal["additive", "examination"] = "additive"
    """With additive, a bias of each position on the click logit. examination: a probability that the position is
    looked at, which multiplies the click probability."""
    learning_rate_scale: float = Field(default=10.0, gt=0.0)
    """Learning rate of the position biases divided by that of the layers. Above 1, because these few numbers have to
    change a lot in few steps."""


class BaselineConfig(FrozenConfig):
    """Sizes of the baselines of the main table; all share them, so that the comparison is fair."""

    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers."""
    embedding: int = Field(default=8, ge=1)
    """Width of each categorical field's embedding."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout probability in training."""
    match: bool = False
    """Whether the baselines also read the match features, including the looked-up levels."""
    interaction: tuple[int, ...] = Field(default=(16, 16), min_length=1)
    """Rows of each layer of the interaction network of xdeepfm."""
    behaviour_width: int = Field(default=32, ge=1)
    """Width in din and daian of an embedded behaviour."""
    attention_hidden: tuple[int, ...] = (32,)
    """Widths of the hidden layers of din's activation unit and of daian's intent network."""
    similarity_bins: int = Field(default=5, ge=2)
    """Number of bins in daian of a behaviour's similarity to the query."""


ModelName = Literal["lr", "dnn", "wide-deep", "deepfm", "xdeepfm", "din", "sukd", "daian", "prectr", "prectr-v2"]
MODELS: tuple[str, ...] = get_args(ModelName)


class ModelConfig(FrozenConfig):
    """One ranker. `preference`, `debias` and `encoder` are the ablations of prectr-v2; sukd reads `encoder` too."""

    name: ModelName = "prectr-v2"
    """Name of the ranker to train."""
    preference: bool = True
    """Whether prectr-v2 uses relevance preferences mined across users, which help cold users."""
    debias: bool = True
    """Whether prectr-v2 trains with relevance exposure debias."""
    encoder: Literal["tuned", "frozen", "undistilled"] = "tuned"
    """With tuned, the distilled text encoder is also trained with clicks. frozen: it is not. undistilled: the encoder
    starts from random weights instead of the distilled ones."""
    fusion: FusionConfig = FusionConfig()
    """Relevance level module and Base module of prectr and prectr-v2."""
    consistency: ConsistencyConfig = ConsistencyConfig()
    """Semantic consistency terms in the loss of prectr and prectr-v2."""
    incentive: IncentiveConfig = IncentiveConfig()
    """Personal relevance incentive of prectr and prectr-v2."""
    exposure: ExposureConfig = ExposureConfig()
    """Relevance exposure debias of prectr-v2; see `debias`."""
    position: PositionConfig = PositionConfig()
    """Position bias of every model."""
    baseline: BaselineConfig = BaselineConfig()
    """Sizes of the baselines; prectr and prectr-v2 do not use them."""
    table_rate_scale: float = Field(default=1.0, gt=0.0)
    """Learning rate of large id tables divided by that of the layers."""
