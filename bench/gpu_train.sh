#!/usr/bin/env bash
# Every figure that needs a GPU, in about ten minutes on one H200.
#
#     bench/gpu_train.sh [--tiny [CASE ...]]
#
# Writes gpu_train-DATE.txt into $OUT, or bench/results/, line by line, so that a run which is cut
# short keeps what it has, and what went wrong into gpu_train.log beside it. A machine without a
# network takes what its python lacks from wheels/, filled on another one. Where python3 is 3.12 with
# torch, transformers, accelerate, peft, pandas and pyarrow, this is all that it needs:
#
#     pip download --no-deps --only-binary :all: --python-version 3.12 -c constraints.txt -d wheels \
#         trl datasets dill multiprocess tree-sitter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
out=${OUT:-bench/results}
export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

if [[ -d wheels ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" wheels/*.whl
    PYTHONPATH+=:$site
fi
tiny=()
if [[ ${1:-} == --tiny ]]; then tiny=(--tiny); fi
mkdir -p "$out"
{
    echo "\$ bench/gpu_train.sh $*"
    status=0
    "$python" bench/gpu_train.py "$@" || status=$?
    "$python" bench/gpu_plan.py "${tiny[@]}" || status=$?
    exit "$status"
} 2> "$out/gpu_train.log" | tee "$out/gpu_train-$(date +%F).txt"
