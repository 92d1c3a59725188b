#!/usr/bin/env bash
# The demo: train on photographs with synthetic camera shake, score held-out photographs, restore a folder of them.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/fftformer_demo}

python fftformer/train.py --output "$run"
python fftformer/evaluate.py --checkpoint "$run/model" --output "$run/evaluation" --save-pictures
python fftformer/predict.py --checkpoint "$run/model" \
    --input "$run/evaluation/blurred" --output "$run/restored" --existing replace
