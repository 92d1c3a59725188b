#!/usr/bin/env bash
# The demo: train on a synthetic scene with three seeds, score them, map the scene with the first one.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/amgcfn_demo}

python amgcfn/train.py --output "$run"
python amgcfn/evaluate.py --checkpoint "$run"
python amgcfn/predict.py --checkpoint "$run/seed_1330/model" --output "$run/seed_1330/maps" --existing replace
