"""A scene of Pavia University's size needs less than 2 GB, in its own process."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import numpy as np
import torch
from torch.nn import functional as F
from common.measuring import peaks
from common.hyperspectral.synthetic import synthetic_scene
from lsgavit import create_model, predict_pixels
from lsgavit.data import PreparedScene
from lsgavit.presets import Config

peaks.reset_peak()
scene = synthetic_scene(610, 340, bands=103, num_classes=9)
sample = PreparedScene.draw(scene, Config(), seed=5)
windows = sample.windows((9, 9))
model = create_model(num_classes=9)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
classes = torch.from_numpy(scene.labels.reshape(-1) - 1)
for step in range(3):
    pixels = torch.from_numpy(sample.split.train[128 * step : 128 * step + 128])
    optimizer.zero_grad()
    F.cross_entropy(model(windows[pixels]), classes[pixels]).backward()
    optimizer.step()
# Strips take turns in the same memory: two of them need what all 39 need, besides the result.
result = np.zeros((610 * 340, 9), np.float32)
for pixels, logits in predict_pixels(model.eval(), windows, np.arange(20 * 340)[::7]):
    result[pixels.numpy()] = logits.softmax(dim=1).numpy()
print(peaks.peak())
"""


def test_training_and_prediction_stay_under_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    resident = int(done.stdout.split()[-1])
    assert resident < 2e9, f"{resident / 1e9:.2f} GB resident"
