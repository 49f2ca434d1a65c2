"""The measured unit costs: a committed data file, each figure with the benchmark that printed it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, listed, shorten

FILE = Path(__file__).with_name("unit_costs.yaml")
NAMES = (
    *("tables_bytes_per_impression", "relevance_bytes_per_pair", "samples_bytes_per_impression"),
    *("samples_bytes_per_pair", "partial_bytes_per_impression", "before_bytes_per_impression"),
    *("snapshot_bytes_per_impression", "ledger_bytes_per_label", "samples_shuffle_bytes_per_impression"),
    *("state_user_bytes_per_impression", "state_bytes_per_query", "state_bytes_per_item", "state_bytes_per_pair"),
    *("state_file_per_content_byte", "prompt_tokens_per_question", "prompt_shared_tokens"),
    *("distill_core_seconds_per_pair", "score_core_seconds_per_pair"),
    *("mine_core_seconds_per_impression", "samples_core_seconds_per_impression", "train_core_seconds_per_row"),
    *("lookup_core_seconds_per_pair", "lookup_core_seconds_per_query_day", "lookup_core_seconds_per_pair_of_day"),
    *("hash_seconds_per_byte", "state_seconds_per_content_byte", "replica_requests_per_second", "replica_bytes"),
    *("select_bytes_per_pair", "layout_bytes_per_pair", "index_bytes_per_pair"),
    *("index_building_bytes_per_pair", "prior_bytes_per_query", "category_bytes_per_query"),
    *("day_pairs_bytes_per_pair", "day_users_bytes_per_user", "samples_driver_bytes_per_pair"),
    *(
        "state_writer_bytes_per_content_byte",
        "publish_bytes_per_content_byte",
        "label_driver_bytes_per_question",
        "distill_driver_bytes_per_pair",
    ),
    *("train_bytes_per_pair", "train_bytes_per_row", "evaluate_bytes_per_training_row"),
)
"""Every figure that the calculator uses."""


class UnitCost(FrozenConfig):
    """One measured figure."""

    value: float = Field(gt=0)
    unit: str = Field(min_length=1)
    what: str = Field(min_length=1)
    """What was measured, and how."""
    benchmark: str = Field(pattern=r"^make bench-[a-z]+$")
    """The command that printed it."""
    where: str = Field(pattern=r"^docs/[a-z]+\.md$")
    """The page that states it."""


class UnitCosts(FrozenConfig):
    """All of them."""

    machine: str = Field(min_length=1)
    """The machine that they were measured on."""
    log: str = Field(min_length=1)
    """What was measured on."""
    costs: Mapping[str, UnitCost]

    def __getitem__(self, name: str) -> float:
        """The value of a figure."""
        return self.costs[name].value


def read_unit_costs(file: Path) -> UnitCosts:
    """Read a file of unit costs.

    Raises:
        PrectrError: it cannot be read, a figure is missing or unknown, or one has no unit or source.
    """
    try:
        found = UnitCosts.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise PrectrError(f"{file}: no unit costs ({shorten(error)}); `make bench-plan` writes them.") from None
    missing, unknown = sorted(set(NAMES) - set(found.costs)), sorted(set(found.costs) - set(NAMES))
    if missing or unknown:
        raise PrectrError(
            f"{file}: lacks {listed(missing) or 'nothing'}, and holds unknown {listed(unknown) or 'nothing'}; "
            "`make bench-plan` writes it."
        )
    return found


@cache
def unit_costs() -> UnitCosts:
    """The committed ones."""
    return read_unit_costs(FILE)
