"""Train PRECTR-V2 on a small log, stage by stage, then rank the candidates of one request in this process.

    python examples/train_and_score.py [FOLDER]

Run it from the root of the repository. FOLDER (by default `tutorial`) gets the log and all artifacts; a stage that is
up to date is skipped, so a second run only scores. docs/tutorial.md explains each stage.
"""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from make_small_log import main as make_log

from prectr.contracts.protocol import ScoreRequest
from prectr.ranking.ranking import Ranking

SETTINGS = Path(__file__).parent / "small_log.yaml"


def prectr(command: str, *arguments: object) -> None:
    """Run a command of `prectr` with the settings of the small log; a failure ends this script."""
    options = [] if command == "validate" else ["--config", str(SETTINGS)]
    subprocess.run([sys.executable, "-m", "jobs", command, *map(str, arguments), *options], check=True)


def train(folder: Path) -> Path:
    """Bring the log from CSV files to a ranker; returns the bundle."""
    ws = folder / "ws"
    tables, teacher, labels, encoder = ws / "tables", ws / "teacher", ws / "labels", ws / "encoder"
    relevance, preferences, samples = ws / "relevance", ws / "preferences", ws / "samples"
    bundle = ws / "rankers" / "prectr-v2"

    prectr("validate", folder / "log", "--out", tables)
    prectr("train-teacher", "--tables", tables, "--out", teacher)
    prectr("label", "--tables", tables, "--teacher", teacher, "--out", labels)
    prectr("distill", "--tables", tables, "--labels", labels, "--out", encoder)
    prectr("score-relevance", "--tables", tables, "--encoder", encoder, "--labels", labels, "--out", relevance)
    prectr("mine-preferences", "--tables", tables, "--relevance", relevance, "--out", preferences)
    prectr(
        *("build-samples", "--tables", tables, "--relevance", relevance),
        *("--preferences", preferences, "--out", samples),
    )
    prectr(
        *("train", "--samples", samples, "--encoder", encoder, "--preferences", preferences),
        *("--model", "prectr-v2", "--out", bundle),
    )
    return bundle


def score(bundle: Path) -> None:
    """Rank four candidates, one of which the catalogue does not hold."""
    new = {"item_id": "new", "title": "nokia phone green"}
    request = ScoreRequest.model_validate(
        {"user_id": "u3", "query": "nokia phone", "candidates": ["i1", "i4", "i16", new]}
    )
    with closing(Ranking(bundle)) as ranking:
        response = ranking.rank(request)
    for entry in response.results:
        print(
            f"{entry.rank}  {entry.item_id:4}  {entry.title:28}  click {entry.click_probability:.3f}  "
            f"level {entry.expected_level:.2f}  tau {entry.tau:+.2f}  {entry.relevance_source}"
        )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tutorial")
    if not (folder / "log").exists():
        make_log(folder / "log")
    score(train(folder))
