#!/usr/bin/env bash
# What only a GPU can show, in order of worth, within ten minutes; steps.py has the steps.
#
#   python benchmarks/gpu/bundle.py .gpu --dataset FOLDER     beforehand, where there is a network
#   bash benchmarks/gpu/run.sh OUT [STAGE...]                 there: works extraction agiqa3k paper ray
#   AGIQA_GPU=cpu bash benchmarks/gpu/run.sh OUT --tiny       the same on a CPU in small, to try it out
#   bash benchmarks/gpu/run.sh OUT --table                    the table of OUT again, on any machine
#
# The machine needs Python 3.12 with torch and no network: what else it lacks comes in the parts of
# .gpu (or $BUNDLE), which may arrive one after another. OUT/results.jsonl has one line a step; steps
# that are there are not run again, so that a stopped run goes on. $PYTHON names another interpreter.
set -euo pipefail
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
  echo "run.sh: $python: expected Python 3.11 or newer, found another or none:" \
    "PYTHON=python3.12 bash benchmarks/gpu/run.sh OUT" >&2
  exit 2
fi
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/run.py" "$@"
