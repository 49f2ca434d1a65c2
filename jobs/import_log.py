"""import: bring a published data set, or a log that a mapping file describes, into canonical tables."""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import PATH, Force, Out, command
from prectr.core.artifacts import StageResult
from prectr.core.errors import UsageError, quoted
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.diginetica import open_diginetica
from prectr.data.importers.esci import open_esci
from prectr.data.importers.home_depot import open_home_depot
from prectr.data.importers.import_tables import import_tables
from prectr.data.importers.kuaisearch import open_kuaisearch
from prectr.data.importers.mapping import open_mapping
from prectr.data.importers.wands import open_wands

ADAPTERS = {
    "wands": open_wands,
    "esci": open_esci,
    "home-depot": open_home_depot,
    "kuaisearch": open_kuaisearch,
    "diginetica": open_diginetica,
    "mapping": open_mapping,
}


@command("import")
def run(
    *,
    source: Annotated[str, typer.Argument(help="wands, esci, home-depot, kuaisearch, diginetica or mapping.")],
    path: Annotated[Path, typer.Argument(help="Where the published files lie; for mapping, the YAML file.", **PATH)],
    out: Out,
    config: ImportConfig,
    validation: ValidateConfig,
    force: Force = False,
) -> StageResult:
    """Import `source` from `path` and publish its tables at `out`.

    Raises:
        UsageError: no such source or file.
    """
    adapter = ADAPTERS.get(source)
    if adapter is None:
        nearest = difflib.get_close_matches(source, ADAPTERS, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        raise UsageError(f"import: no source {quoted(source)}.{hint} There are: {', '.join(ADAPTERS)}.")
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory.")
    opened = adapter(path, config)
    return import_tables(opened, path, out, config=config, validation=validation, force=force)
