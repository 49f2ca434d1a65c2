"""`prectr plan`: a table for people, clean JSON, messages that name the option; never Ray."""

import json
import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from tests.jobs.run_command import Prectr

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
ASKED = ("--impressions-per-day", "1B", "--queries", "100M", "--labels", "500M", "--requests-per-second", "10k")

pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture
def plan(prectr: Prectr) -> Prectr:
    """`prectr plan ...`."""
    return partial(prectr, "plan")


def test_json_is_all_that_stands_on_standard_output(plan: Prectr) -> None:
    code, out, _ = plan(*ASKED, "--gpu-tokens-per-second", "10k", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["load"]["impressions"] == 30_000_000_000
    assert found["first_bottleneck"] == found["structures"][0]
    tokens = found["unit_costs"]["costs"]["prompt_tokens_per_question"]["value"]
    assert found["labelling"]["gpu_hours"] == pytest.approx(500e6 * tokens / 10_000 / 3600)


def test_people_read_the_first_bottleneck_the_assumptions_and_that_no_gpu_was_measured(
    plan: Prectr,
) -> None:
    code, out, _ = plan(*ASKED, "--users", "5M")
    told = " ".join(out.split())
    assert code == 0
    assert "first bottleneck: " in told
    assert "assumed, not given: items 50 M, pairs_per_query 20" in told
    assert "give --gpu-tokens-per-second" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--queries", "0"), "--queries '0'"),
        (("--labels", "-1"), "--labels '-1'"),
        (("--machine", "huge"), "--machine 'huge'"),
        (("--hours", "-2"), "--hours"),
        (("--hours-of", "cook=3"), "--hours-of 'cook=3'"),
        (("--hours-of", "train=0"), "--hours-of 'train=0'"),
        (("--days", "0"), "--days"),
        (("--gpu-tokens-per-second", "fast"), "--gpu-tokens-per-second 'fast'"),
    ],
)
def test_what_cannot_be_is_refused_with_code_2(arguments: tuple[str, str], said: str, plan: Prectr) -> None:
    code, out, err = plan(*ASKED, *arguments)
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err


def test_the_page_shows_what_its_command_prints(plan: Prectr) -> None:
    page = PAGE.read_text(encoding="utf-8")
    command = re.search(r"^    prectr plan (.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    shown = re.search(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert command and shown
    code, out, _ = plan(*shlex.split(command.group(1).replace("\\\n", " ")))
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()] == shown.group(1).splitlines()
