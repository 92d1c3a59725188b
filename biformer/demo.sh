#!/usr/bin/env bash
# The demo: train on crops of photographs and textures, score crops from other parts of them, label a folder, draw routes.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/biformer_demo}

accelerate launch biformer/train.py --output "$run"
python biformer/evaluate.py --checkpoint "$run/model" --output "$run/evaluation" --save-pictures 24
python biformer/predict.py --checkpoint "$run/model" --input "$run/evaluation/pictures" \
    --output "$run/labels.csv" --routing "$run/figures/routing_query.png" --overwrite
