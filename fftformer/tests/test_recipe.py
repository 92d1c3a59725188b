"""The published update, written out in PyTorch, gives the same weights as train.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from common.sampling import EndlessSampler
from fftformer import create_model, load_model
from fftformer.data import TrainingPairs
from fftformer.layouts import find_pairs

SEED, UPDATES, ACCUMULATION, BATCH, ITERATIONS = 3, 3, 2, 2, 5
RATE, LAST_RATE, DECAY, AVERAGE = 1e-3, 1e-7, 1e-3, 0.9


def test_the_loop_by_hand(train: Callable[..., Path], pairs_folder: Path, tmp_path: Path) -> None:
    flags = ("--seed", SEED, "--gradient-accumulation", ACCUMULATION, "--ema", AVERAGE)
    exported = load_model(train(tmp_path, *flags, "--max-steps", UPDATES) / "model").state_dict()

    pairs = TrainingPairs(find_pairs(pairs_folder, "train"), crop=32, seed=SEED)
    keys = iter(EndlessSampler(len(pairs), batch_size=BATCH, seed=SEED))
    torch.manual_seed(SEED)
    model = create_model("fftformer_tiny").train()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.9), weight_decay=DECAY)
    average: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        cosine = (1 + math.cos(math.pi * update / ITERATIONS)) / 2
        optimizer.param_groups[0]["lr"] = LAST_RATE + (RATE - LAST_RATE) * cosine
        for _ in range(ACCUMULATION):
            items = [pairs[next(keys)] for _ in range(BATCH)]
            blurred, sharp = (torch.stack([item[side] for item in items]) for side in ("blurred", "sharp"))
            restored = model(blurred)
            spectra = [torch.view_as_real(torch.fft.fft2(images)) for images in (restored, sharp)]
            loss = (restored - sharp).abs().mean() + 0.1 * (spectra[0] - spectra[1]).abs().mean()
            (loss / ACCUMULATION).backward()
        nn.utils.clip_grad_norm_(trained, 0.01)
        optimizer.step()
        optimizer.zero_grad()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        # The average begins with the weights after the first update.
        average = {name: AVERAGE * average.get(name, value) + (1 - AVERAGE) * value for name, value in weights.items()}

    assert exported.keys() == average.keys()
    for name, value in average.items():
        torch.testing.assert_close(exported[name], value, rtol=0, atol=1e-5, msg=name)
    # The weights changed by a hundred times the tolerance.
    assert max((average[name] - start[name]).abs().max().item() for name in average) > 1e-3
