#!/usr/bin/env bash
# The demo: train on crops of photographs and textures, score crops from other parts of them, classify a folder, draw the
# routing; then segment scenes and detect objects that are pasted from photographs.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/biformer_demo}

python biformer/train.py --output "$run"
python biformer/evaluate.py --checkpoint "$run/model" --output "$run/evaluation" --save-pictures 24 --workers 1
python biformer/predict.py --checkpoint "$run/model" --input "$run/evaluation/pictures" \
    --output "$run/labels.csv" --routing "$run/figures/routing_query.png" --existing replace

python biformer/segmentation/train.py --output "$run/segmentation"
python biformer/segmentation/predict.py --checkpoint "$run/segmentation/model" \
    --input "$run/segmentation/data/ADEChallengeData2016/images/validation" --output "$run/segmentation/predicted" --existing replace
python biformer/detection/train.py --output "$run/detection"
python biformer/detection/predict.py --checkpoint "$run/detection/model" \
    --input "$run/detection/data/val2017" --output "$run/detection/predicted" --existing replace
