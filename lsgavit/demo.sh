#!/usr/bin/env bash
# The demo: train on a synthetic scene, score it, map the whole scene.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/lsgavit_demo}

python lsgavit/train.py --output "$run"
python lsgavit/evaluate.py --checkpoint "$run"
python lsgavit/predict.py --checkpoint "$run/seed_5/model" --output "$run/seed_5/maps" --existing replace
