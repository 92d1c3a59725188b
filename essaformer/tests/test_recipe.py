"""The trainer's loop by hand: the same network, batches and updates in plain PyTorch give the same weights."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from torch.nn import functional as F

from common.sampling import EndlessSampler
from essaformer import create_model, load_model
from essaformer.data import TrainingPatches
from essaformer.scaling import Scaling
from essaformer.scenes import load_regions

UPDATES, BATCH, ACCUMULATION, SEED = 8, 2, 2, 3


@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("network", ["essaformer", "essaformer_small"])
def test_the_exported_weights_are_those_of_the_loop_by_hand(verb, network: str, schedule: str, tmp_path: Path) -> None:
    cube = tmp_path / "scene.npy"
    np.save(cube, np.random.default_rng(1).integers(1, 4000, (40, 40, 3)).astype(np.uint16))
    verb(
        "train", "--preset", "chikusei_x4", "--cube", cube, "--scale", 2, "--model", network, "--dim", 4, "--crop", 12,
        "--stride", 4, "--batch-size", BATCH, "--gradient-accumulation", ACCUMULATION, "--workers", 0, "--seed", SEED,
        "--iterations", UPDATES, "--schedule", schedule, "--learning-rate", 0.01, "--output", tmp_path / "run",
        "--validate-every", 3, draws=False,
    )  # fmt: skip

    regions = load_regions("", None, Scaling("maximum"), 2, cube=str(cube))["train"]
    patches = TrainingPatches(regions, crop=12, stride=4, scale=2, seed=SEED)
    sampler = iter(EndlessSampler(len(patches), batch_size=BATCH, seed=SEED))
    set_seed(SEED)
    model = create_model(network, bands=3, dim=4, scale=2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for update in range(UPDATES):
        if schedule == "step":  # published: a tenth from epoch 30 of 40 on
            factor = 1.0 if update < 6 else 0.1
        else:
            factor = (update + 1) / 20 * (0.5 + 0.5 * math.cos(math.pi * update / UPDATES))
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        optimizer.zero_grad()
        for _ in range(ACCUMULATION):
            items = [patches[key] for key in islice(sampler, BATCH)]
            low, high = (torch.stack([item[name] for item in items]) for name in ("low", "high"))
            y = model(low)
            down, across, along = y.diff(dim=2), y.diff(dim=3), y.diff(dim=1)
            smooth = 1e-3 * (down.square().mean() + across.square().mean()) + 1e-3 * along.square().mean()
            ((F.l1_loss(y, high) + smooth) / ACCUMULATION).backward()
        optimizer.step()
    exported = load_model(tmp_path / "run/model").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(exported[name], value, rtol=1e-5, atol=1e-7, msg=name)
