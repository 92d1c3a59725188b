"""The training by hand, in plain PyTorch: the exported weights are the same up to rounding."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from common.sampling import EndlessSampler
from conftest import QUICK, Verb
from hcanet import create_model, load_model
from hcanet.data import Stage, TrainingPatches


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_exported_weights_are_those_of_the_published_update(
    loss: str, scene: Path, verb: Verb, tmp_path: Path
) -> None:
    flags = ("--gradient-accumulation", 2, "--gradient-weight", 0.01, "--gradient-form", "released")
    verb(
        "train",
        "--cube",
        scene,
        "--output",
        tmp_path,
        *QUICK,
        *flags,
        "--loss",
        loss,
        "--learning-rate",
        2e-3,
        "--seed",
        5,
    )

    cube = np.moveaxis(np.load(scene), -1, 0)
    # 44 rows: 26 (60 %) in multiples of 4 make 28, of which the last 8 validate.
    clean = np.clip(cube[:, :20] / np.float32(np.percentile(cube[:, :28], 99.9)), 0, 1)
    stages = [Stage(0, "gaussian", 16), Stage(2, "case1", 16)]
    patches = TrainingPatches(
        [clean], stages, bands=6, crop=16, stride=1, seed=5, batch=4, sigma=50.0, framework="qrnn3d"
    )
    torch.manual_seed(5)
    model = create_model("hcanet_light", dim=8, bands=6).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    samples = iter(EndlessSampler(len(patches), batch_size=2, seed=5))
    kernel = torch.tensor([[[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]]])
    for step in range(4):
        # Two updates per stage, each stage a cosine of its own; no warm-up fits into so few.
        optimizer.param_groups[0]["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * (step % 2) / 2))
        for _ in range(2):
            batch = [patches[key] for key in islice(samples, 2)]
            noisy, target = (torch.cat([one[name] for one in batch]) for name in ("noisy", "clean"))
            error = model(noisy) - target
            value = error.abs().mean() if loss == "l1" else error.square().mean()
            average = error.mean(1, keepdim=True)
            for view in (average, average.transpose(2, 3), error.sum(2)[:, None] / 6):
                value = value + 0.01 * torch.nn.functional.conv2d(view, kernel).square().sum().sqrt()
            (value / 2).backward()
        optimizer.step()
        optimizer.zero_grad()

    exported = load_model(tmp_path / "model").state_dict()
    for name, value in model.state_dict().items():
        # Adam divides by a gradient's size, so a few weights with nearly none turn its rounding into a step.
        difference = (exported[name] - value).abs()
        assert difference.mean() < 5e-8 and difference.max() < 1e-5, name
