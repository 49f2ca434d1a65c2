"""How the figures of an evaluation are explained."""

import pytest

from prectr.reports.terminal import reading_help


def _evaluation(verdicts: list[str | None]) -> dict[str, object]:
    models = {
        str(number): {"difference": None if verdict is None else {"verdict": verdict}}
        for number, verdict in enumerate(verdicts)
    }
    return {
        "settings": {"level": 0.95, "cold_requests": 3},
        "models": {"base": {"label": "Wide&Deep"}},
        "base": "base",
        "seeds": 1,
        "figures": {"all": {"auc": models}},
    }


@pytest.mark.parametrize(
    ("verdicts", "chance", "wider"),
    [(["better", "worse", None, "undefined"], "about 0 of the 2 comparisons", "1.14 times"),
     (["no difference"] * 40 + [None], "about 2 of the 40 comparisons", "1.65 times")],
)  # fmt: skip
def test_marks_say_that_they_are_not_corrected_for_multiplicity(
    verdicts: list[str | None], chance: str, wider: str
) -> None:
    """Standard errors of two-sided 95 % by Bonferroni: 2.241 for two comparisons, 3.227 for forty, 1.960 for one."""
    text = reading_help(_evaluation(verdicts))
    assert "not corrected for multiplicity" in text and chance in text and wider in text


def test_a_single_comparison_needs_no_correction() -> None:
    assert "multiplicity" not in reading_help(_evaluation([None, "better"]))
