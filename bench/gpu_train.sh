#!/usr/bin/env bash
# Every figure that needs a GPU, in about ten minutes on one H200.
#
#     bench/gpu_train.sh [--tiny]
#
# Writes gpu_train-DATE.txt into $OUT, or bench/results/. What python lacks (trl, datasets) is taken
# from wheels/ where that folder exists, so that a machine without a network can run it; fill it with
#     pip download --only-binary :all: --python-version 3.12 -d wheels trl datasets tree-sitter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
out=${OUT:-bench/results}
export PYTHONPATH=. HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

if ! "$python" -c "import trl, datasets" 2>/dev/null && [[ -d wheels ]]; then
    "$python" -m pip install --quiet --no-index --find-links wheels trl datasets tree-sitter
fi
mkdir -p "$out"
{
    echo "\$ bench/gpu_train.sh $*"
    "$python" bench/gpu_train.py "$@"
} 2> >(tail -n 200 > "$out/gpu_train.log" || true) | tee "$out/gpu_train-$(date +%F).txt"
