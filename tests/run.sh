#!/usr/bin/env bash
# The tests of `make test`, in two processes side by side, which take about equally long: the tests of jobs, which mostly
# wait for Ray, and all others, whose output follows when both are done. Tests marked `slow` (`make test-slow`) and
# `faults` (`make test-faults`) are left out. With options, such as `-k name` or a path, one process runs that selection.
#
#     bash tests/run.sh PYTHON [OPTIONS]
set -uo pipefail
python=$1
shift
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
# Ray starts its workers at nice 15; beside tests at 0 they would hardly run.
export RAY_worker_niceness=0
said=$(mktemp)
"$python" -m pytest --durations=10 -m "not faults and not slow" --ignore=tests/jobs tests > "$said" 2>&1 &
others=$!
trap 'kill "$others" 2> /dev/null; rm -f "$said"' EXIT
"$python" -m pytest --durations=10 -m "not faults and not slow" tests/jobs
waiting=$?
wait "$others"
computing=$?
cat "$said"
exit $((waiting || computing))
