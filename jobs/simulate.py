"""simulate: make a log with known truth, from the built-in marketplace or on a real catalogue."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Force, Out, Shortcut, command
from prectr.core import progress
from prectr.core.artifacts import StageResult, run_stage
from prectr.core.errors import UsageError
from prectr.data.marketplace import prepare
from prectr.data.marketplace.config import MarketplaceConfig


@command(
    "simulate",
    shortcuts={
        "scale": Shortcut("simulate.scale", Annotated[str | None, typer.Option(help="small, medium or large.")]),
        "seed": Shortcut(
            "simulate.seed", Annotated[int | None, typer.Option(help="The same seed writes the same log.")]
        ),
        "placebo": Shortcut(
            "simulate.placebo", Annotated[bool, typer.Option("--placebo", help="All tolerances equal.")]
        ),
    },
)
def run(
    *,
    out: Out,
    config: MarketplaceConfig,
    catalogue: Annotated[
        Path | None,
        typer.Option("--catalogue", help="Validated tables: their items, queries and judgments are used.", **PATH),
    ] = None,
    force: Force = False,
) -> StageResult:
    """Simulate a log and publish its tables at `out`, with `truth/` for evaluation.

    `catalogue` names validated tables whose items, queries and judgments are used instead of invented ones.
    """
    if catalogue is not None:
        _check_catalogue(catalogue, out, config)

    def build(staging: Path) -> dict[str, Any]:
        from prectr.data.marketplace.writer import write_marketplace

        marketplace = prepare(config, catalogue)
        with progress.track("simulate", unit="impressions") as bar:
            statistics = write_marketplace(marketplace, config, staging, lambda _, rows: bar.advance(rows))
        progress.say(
            f"  click-through rate {statistics['ctr']:.1%}, cold users on the last day "
            f"{statistics['last_day_cold_share']:.0%} (the built-in marketplace's: 3 to 5 %, about a third)"
        )
        return {"simulated": True, "statistics": statistics}

    inputs = {} if catalogue is None else {"catalogue": catalogue}
    return run_stage("simulate", out, config=config, inputs=inputs, build=build, force=force)


def _check_catalogue(catalogue: Path, out: Path, config: MarketplaceConfig) -> None:
    """Refuse a wrong catalogue before work starts, and an `out` that would replace the catalogue."""
    from prectr.data.marketplace.real_catalogue import check_sizes
    from prectr.data.tables import Tables

    check_sizes(config)
    Tables(catalogue)
    source, target = catalogue.resolve(), out.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UsageError(f"{out}: --out and --catalogue may not lie in one another; give another --out.")
