#!/usr/bin/env bash
# What only a GPU can show, in order of worth, within ten minutes; steps.py has the steps.
#
#   python benchmarks/gpu/bundle.py .gpu --dataset FOLDER     beforehand, where there is a network
#   bash benchmarks/gpu/run.sh OUT [STAGE...]                 there: works extraction agiqa3k paper ray
#   bash benchmarks/gpu/run.sh OUT --tiny                     the same on a CPU in small, to try it out
#
# The machine needs Python 3.12 with torch and transformers, and no network: all else comes in the
# parts of .gpu, which may arrive one after another. OUT/results.jsonl has one line a step; steps
# that are there are not run again, so that a stopped run goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:?say where the results go: bash benchmarks/gpu/run.sh OUT [STAGE...]}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
bundle=${BUNDLE:-.gpu}

if [ -e "$bundle/bundle.json" ] && [ ! -e "$bundle/unpacked/done" ]; then
  "$python" benchmarks/gpu/bundle.py "$bundle" --unpack
fi
if [ -d "$bundle/unpacked/wheels" ] && [ ! -d "$bundle/site" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$bundle/site" \
    "$bundle"/unpacked/wheels/*.whl
  # agiqa runs from this folder; its version is asked for as that of an installed package.
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  mkdir -p "$bundle/site/agiqa-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: agiqa\nVersion: %s\n' "$version" \
    > "$bundle/site/agiqa-$version.dist-info/METADATA"
fi
export PYTHONPATH="$PWD/pipeline:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
[ ! -d "$bundle/site" ] || export PYTHONPATH="$PYTHONPATH:$(cd "$bundle/site" && pwd)"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
exec "$python" benchmarks/gpu/steps.py "$out" --bundle "$bundle/unpacked" "$@"
