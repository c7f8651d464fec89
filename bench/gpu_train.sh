#!/usr/bin/env bash
# Every figure that needs a GPU, in about ten minutes on one H200.
#
#     bench/gpu_train.sh [--tiny]
#
# Writes gpu_train-DATE.txt into $OUT, or bench/results/. What python lacks (trl, datasets) is taken
# from wheels/ where that folder exists, so that a machine without a network can run it; fill it with
#     pip download --no-deps --only-binary :all: --python-version 3.12 -d wheels $packages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
out=${OUT:-bench/results}
export PYTHONPATH=. HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

packages="trl datasets pyarrow pandas dill xxhash multiprocess tree-sitter kingfisher-secret-scanner"
packages+=" rensa rapidfuzz networkx tqdm pyyaml tree-sitter-python"

if ! "$python" -c "import trl, datasets, tree_sitter, yaml" 2>/dev/null && [[ -d wheels ]]; then
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --no-index --no-deps --find-links wheels $packages
fi
mkdir -p "$out"
{
    echo "\$ bench/gpu_train.sh $*"
    "$python" bench/gpu_train.py "$@"
    if [[ $# == 0 ]]; then "$python" bench/gpu_plan.py; fi
} 2> >(tail -n 200 > "$out/gpu_train.log" || true) | tee "$out/gpu_train-$(date +%F).txt"
