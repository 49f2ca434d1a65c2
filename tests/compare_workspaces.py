"""Compare two workspaces of `prectr pipeline` file by file: tables, labels, samples, weights and figures.

For changes that must not change results, such as a new layout of the code. Both runs need one machine, build and
number of threads, and the engine transformers, because vLLM's answers vary in their last digits:

    prectr pipeline --set pipeline.workspace=OLD --set label.engine=transformers    (old code)
    prectr pipeline --set pipeline.workspace=NEW --set label.engine=transformers    (new code)
    python tests/compare_workspaces.py OLD NEW

Manifests, records of runs and report pages hold times, so they are left out; of JSON files the fields in `TIMES` are.
The exit code is 1 if any file differs or is missing on one side.
"""

import json
import sys
from pathlib import Path
from typing import Any

LEFT_OUT = ("manifest.json", "pipeline.json")
TIMES = ("seconds", "wall_seconds", "started", "time", "rows_per_second", "examples_per_second", "samples_per_second")


def compared_files(workspace: Path) -> dict[str, Path]:
    """Files that must be equal, by their path below the workspace."""
    files = {str(file.relative_to(workspace)): file for file in workspace.rglob("*") if file.is_file()}
    return {
        name: file
        for name, file in sorted(files.items())
        if file.name not in LEFT_OUT
        and "/runs/" not in f"/{name}"
        and not name.startswith("reports/page/")
        and not any(part.startswith(".") for part in Path(name).parts)
    }


def content(file: Path) -> Any:
    """Bytes of a file; JSON without the fields that hold times."""
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
