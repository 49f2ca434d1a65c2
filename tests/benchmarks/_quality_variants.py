"""What the quality benchmark trains, in groups, and what each is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from prectr.core.config import assign_path
from prectr.training.config import TrainConfig

TOP = "prectr-v2"
EPOCHS = 1
"""One pass, for the time it takes; `two-passes` below says what a second one brings."""
SEEDS = 5
FEW_SEEDS = 3


@dataclass(frozen=True)
class Variant:
    """One thing that is judged.

    Attributes:
        name: unique.
        what: for the reader.
        kind: a ranker of ours, or what rankers are compared with.
        train: of a ranker.
        against: the variant it is compared with.
        world: the log, or another way to make samples of it: see `_quality_world`.
        encoder: `distilled`, or `random`: the same architecture with weights drawn anew.
        seeds: trainings; one where there is no chance in it.
    """

    name: str
    what: str
    kind: Literal["ranker", "lightgbm", "observer", "oracle", "student"] = "ranker"
    train: TrainConfig | None = None
    against: str | None = None
    world: str = "log"
    encoder: Literal["distilled", "random"] = "distilled"
    seeds: int = SEEDS


def _ranker(name: str, model: str, what: str, *settings: str, **options: Any) -> Variant:
    values: dict[str, Any] = {"model": {"name": model}, "epochs": EPOCHS}
    for setting in settings:
        key, _, value = setting.partition("=")
        assign_path(values, key.split("."), yaml.safe_load(value))
    return Variant(name, what, train=TrainConfig.model_validate(values), **options)


def _v2(name: str, what: str, *settings: str, **options: Any) -> Variant:
    return _ranker(name, TOP, what, *settings, **{"against": TOP, **options})


def _frozen(name: str, what: str, *settings: str, **options: Any) -> Variant:
    """V2 with its encoder frozen, which trains in a quarter of the time; compared with `frozen`, by fewer seeds."""
    return _v2(name, what, "model.encoder=frozen", *settings, **{"against": "frozen", "seeds": FEW_SEEDS, **options})


GROUPS: dict[str, tuple[Variant, ...]] = {
    "table": (
        Variant("oracle", "the truth's own click probability", kind="oracle", seeds=1),
        Variant(
            "observer", "told all but what only clicks can tell (`_quality_observer.py`)", kind="observer", seeds=1
        ),
        Variant(
            "lightgbm",
            "gradient boosting on the same point-in-time features",
            kind="lightgbm",
            against=TOP,
            seeds=FEW_SEEDS,
        ),
        _ranker("wide-deep", "wide-deep", "Wide&Deep", against=TOP),
        _ranker("din", "din", "DIN", against=TOP),
        _ranker("prectr", "prectr", "PRECTR: frozen encoder, own history only", against=TOP),
        _ranker(TOP, TOP, "PRECTR-V2, the defaults", against="prectr"),
    ),
    "ablations": (
        _v2("no-mining", "without cold-start preference mining", "model.preference=false"),
        _v2("no-debias", "without exposure debias", "model.debias=false"),
        _v2("frozen", "encoder not tuned with clicks", "model.encoder=frozen"),
        _v2(
            "fast-encoder",
            "encoder and RSL at a tenth of the rate, not a fiftieth",
            "encoder_scale=0.1",
            seeds=FEW_SEEDS,
        ),
        _v2("undistilled", "encoder not distilled: its weights are drawn anew, and tuned", encoder="random"),
    ),
    "placebo": (
        _frozen("placebo", "equal tolerances", against="placebo-no-mining", world="placebo"),
        _frozen(
            "placebo-no-mining", "the same without mining", "model.preference=false", against=None, world="placebo"
        ),
    ),
    "mining": (
        _frozen("told-queries", "mined query tolerances replaced by the true ones", world="told-queries"),
        _frozen("told-all", "tolerances of queries and users replaced by the true ones", world="told-all"),
        _frozen("no-counts", "without the numbers that count how much was mined", world="no-counts"),
        _frozen("no-g-q", "without g_q", world="no-g-q"),
        _frozen("frozen-no-mining", "no tolerances, S_u, S_q or g_q at all", "model.preference=false"),
    ),
    "debias": (
        _frozen("frozen-no-debias", "no fakes", "model.debias=false", against="frozen"),
        *(
            _frozen(f"debias-{weight}", f"weight {weight}, not the measured one", f"model.exposure.weight={weight}")
            for weight in ("0.03", "0.3", "1.0")
        ),
        *(
            _frozen(f"debias-{name}", what, "model.exposure.weight=0.3", *settings, against="debias-0.3")
            for name, what, *settings in (
                ("mix-up", "mix-up instead of noise", "model.exposure.fake=mix-up"),
                ("ungated", "tolerant users' fakes count fully", "model.exposure.tolerance_gate=false"),
                ("untruncated", "weak positives count too", "model.exposure.truncation=false"),
                ("fixed", "the margin is the same for near and far levels", "model.exposure.margin_form=fixed"),
                ("stale", "the fake keeps its real row's numbers", "model.exposure.consistent=false"),
            )
        ),
        *(
            _frozen(
                f"relevant-only{name}",
                f"weak items were hardly ever shown: {what}",
                *settings,
                against="relevant-only-no-debias" if name != "-no-debias" else None,
                world="relevant-only",
            )
            for name, what, *settings in (
                ("-no-debias", "no fakes", "model.debias=false"),
                ("", "the defaults but for a frozen encoder"),
                ("-0.3", "weight .3", "model.exposure.weight=0.3"),
            )
        ),
    ),
    "relevance": (
        _frozen(
            "all-trust",
            "p is the looked-up distribution, so that the RSL module does not train",
            "model.fusion.trust=[1,1,1]",
        ),
        _frozen(
            "half-trust", "the student's head speaks even where there is a judgment", "model.fusion.trust=[0.5,0.5,0.5]"
        ),
        _frozen("fast-rsl", "the RSL module at a tenth of the rate, not a fiftieth", "encoder_scale=0.1"),
        _frozen("no-level-term", "without (A)", "model.consistency.level_weight=0"),
        _frozen("strong-level-term", "(A) with weight 1", "model.consistency.level_weight=1"),
    ),
    "student": tuple(
        variant
        for way, what in (
            ("", "the defaults"),
            ("no-negatives", "neither random pairs in training nor pairs of the catalogue among the questions"),
            ("no-calibration", "the student is not calibrated"),
            ("no-match-head", "the classifier reads no match features"),
        )
        for variant in (
            Variant(f"student-{way or 'default'}", what, kind="student", world=way or "log", seeds=1),
            *((_frozen(f"ranker-{way}", f"V2 on the levels of: {what}", world=way, against="frozen"),) if way else ()),
        )
    ),
    "levels": tuple(
        variant
        for share in ("0.25", "0.5", "1.0")
        for variant in (
            _frozen(
                f"levels-{share}",
                f"true levels mixed in with weight {share}",
                against="frozen",
                world=f"levels-{share}",
            ),
            _frozen(
                f"levels-{share}-no-debias",
                f"true levels mixed in with weight {share}, no fakes",
                "model.debias=false",
                against=f"levels-{share}",
                world=f"levels-{share}",
            ),
            _ranker(
                f"levels-{share}-wide-deep",
                "wide-deep",
                f"Wide&Deep, true levels mixed in with weight {share}",
                against=f"levels-{share}",
                world=f"levels-{share}",
                seeds=FEW_SEEDS,
            ),
        )
    ),
    "parts": (
        _frozen("attention", "with attention over S_u and S_q", "model.incentive.attention=true"),
        _frozen("level-tau", "tau enters each level", "model.incentive.form=level"),
        _frozen("no-tau", "no incentive", "model.incentive.form='off'"),
        _frozen("sum", "r_user + r_query without a gate", "model.incentive.combine=sum"),
        _frozen(
            "no-consistency",
            "without (A) and (B)",
            "model.consistency.level_weight=0",
            "model.consistency.order_weight=0",
        ),
        _frozen("examination", "position as an examination probability", "model.position.form=examination"),
        _frozen("text-128", "h whole into the level heads", "model.fusion.text_width=128"),
        _frozen("text-0", "h reaches clicks through the levels only", "model.fusion.text_width=0"),
        _frozen("ids", "with ids of users, queries and items", world="ids"),
        _frozen("query-ids", "with hashed queries in target and behaviours", world="query-ids"),
        _frozen(
            "query-ids-attention",
            "the same, with attention over S_u and S_q",
            "model.incentive.attention=true",
            against="attention",
            world="query-ids",
        ),
        _frozen("no-look-up", "no judgment or teacher's label is looked up", world="no-look-up"),
        _frozen("two-passes", "two epochs", "epochs=2"),
        _frozen("gentle", "fewer, smaller steps: rate .002, batches of 2048", "learning_rate=0.002", "batch_size=2048"),
    ),
    "catalogue": (
        Variant("catalogue-student", "real text", kind="student", world="catalogue", seeds=1),
        Variant(
            "catalogue-lightgbm",
            "real text",
            kind="lightgbm",
            world="catalogue",
            against="catalogue-v2",
            seeds=FEW_SEEDS,
        ),
        *(
            _ranker(f"catalogue-{name}", name, "real text", world="catalogue", against="catalogue-v2", seeds=FEW_SEEDS)
            for name in ("wide-deep", "din", "prectr", TOP)
        ),
        *(
            _frozen(
                f"catalogue-{name}",
                what,
                *settings,
                against=None if name == "v2" else "catalogue-v2",
                world=f"catalogue{part}",
            )
            for name, what, part, *settings in (
                ("v2", "real text, the defaults but for a frozen encoder", ""),
                ("no-mining", "without mining", "", "model.preference=false"),
                ("no-debias", "no fakes", "", "model.debias=false"),
                ("debias-0.3", "weight .3", "", "model.exposure.weight=0.3"),
                ("attention", "with attention", "", "model.incentive.attention=true"),
                ("examination", "position as an examination probability", "", "model.position.form=examination"),
                ("ids", "with ids", "-ids"),
                ("no-look-up", "nothing is looked up", "-no-look-up"),
            )
        ),
    ),
}


LADDER = ((TOP, "prectr"), (TOP, "lightgbm"), ("prectr", "din"), ("prectr", "wide-deep"))
"""Whom each is meant to beat."""


def variants_of(groups: Sequence[str]) -> list[Variant]:
    """The variants of some groups; those of `table` come first, because others are compared with them."""
    names = ["table", *(group for group in groups if group != "table")]
    return [variant for group in names for variant in GROUPS[group]]
