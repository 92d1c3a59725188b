#!/usr/bin/env bash
# The demo: train on part of a synthetic scene, score the rest, enlarge a whole scene of another seed.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/essaformer_demo}

python essaformer/train.py --output "$run"
python essaformer/evaluate.py --checkpoint "$run/model" --output "$run/evaluation"
python -c "
import sys, numpy as np
from essaformer.scenes import demo_scene
np.save(sys.argv[1], demo_scene(seed=4, height=96, width=128).cube)" "$run/scene.npy"
python essaformer/predict.py --checkpoint "$run/model" --input "$run/scene.npy" --reduce \
    --output "$run/enlarged.npy" --existing replace
