#!/usr/bin/env bash
# The demo: train on part of a synthetic scene, score the rest, denoise a whole scene of another seed.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/hcanet_demo}

python hcanet/train.py --output "$run"
python hcanet/evaluate.py --checkpoint "$run/model" --output "$run/evaluation"
python -c "
import sys, numpy as np
from hcanet.noise import corrupt
from hcanet.scenes import demo_scene, whole
clean = whole(demo_scene(seed=4, height=96, width=128), 'percentile').values()
np.save(sys.argv[1], np.moveaxis(corrupt(clean, 'gaussian', np.random.default_rng(0)).image, 0, -1))" "$run/scene.npy"
python hcanet/predict.py --checkpoint "$run/model" --input "$run/scene.npy" --output "$run/denoised.npy" \
    --existing replace
