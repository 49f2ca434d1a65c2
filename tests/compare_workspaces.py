"""Compare two workspaces of `prectr pipeline` file by file: tables, labels, samples, weights and figures.

For changes that must not change results, such as a new layout of the code. Both runs need one machine, build and
number of threads, and the engine transformers, because vLLM's answers vary in their last digits:

    prectr pipeline --set pipeline.workspace=OLD --set label.engine=transformers    (old code)
    prectr pipeline --set pipeline.workspace=NEW --set label.engine=transformers    (new code)
    python tests/compare_workspaces.py OLD NEW

Manifests, records of runs and report pages hold times, so they are left out; in JSON files the fields in `TIMES` are.
Shards of the label ledger are cut and named by time: their rows are compared together. The exit code is 1 if any file
differs or is missing on one side.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl

LEFT_OUT = ("manifest.json", "pipeline.json", "context.json")
SHARD = re.compile(r"^(label-ledger/.*/(?:labels|repeats|errors))-[^/]*\.parquet$")
TIMES = ("seconds", "step_seconds")


def compared_files(workspace: Path) -> dict[str, list[Path]]:
    """Files that must be equal, by their path below the workspace; the shards of a ledger have one name."""
    files = {str(file.relative_to(workspace)): file for file in workspace.rglob("*") if file.is_file()}
    compared: dict[str, list[Path]] = {}
    for name, file in sorted(files.items()):
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if file.name in LEFT_OUT or "/runs/" in name or name.startswith("reports/page/") or hidden:
            continue
        shard = SHARD.match(name)
        compared.setdefault(shard[1] if shard else name, []).append(file)
    return compared


def content(files: list[Path]) -> Any:
    """Bytes of a file; JSON without the fields that hold times; rows of a ledger in the order of their keys."""
    if SHARD.match(f"label-ledger/x/{files[0].name}"):
        return pl.read_parquet(files).drop("run").sort("key").rows()
    (file,) = files
    data = file.read_bytes()
    if file.suffix == ".json":
        return _without_times(json.loads(data))
    if file.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in data.splitlines()]
    return data


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def differences(old: Path, new: Path) -> list[str]:
    """One line for each file that differs, or is on one side only."""
    before, after = compared_files(old), compared_files(new)
    lines = [f"only in {old}: {name}" for name in before.keys() - after.keys()]
    lines += [f"only in {new}: {name}" for name in after.keys() - before.keys()]
    lines += [f"differs: {name}" for name in before if name in after and content(before[name]) != content(after[name])]
    return sorted(lines)


def main() -> int:
    """Print the differences and how many files are equal."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    old, new = Path(sys.argv[1]), Path(sys.argv[2])
    lines = differences(old, new)
    print("\n".join(lines))
    print(f"{len(compared_files(old)):,} files of {old} compared, {len(lines):,} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
