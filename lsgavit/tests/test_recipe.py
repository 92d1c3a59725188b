"""The published training in plain PyTorch, from the same seed: the trainer exports the same weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training import load_trainer, train, write_scenes

from common.hyperspectral.classification.splits import stratified_split
from common.hyperspectral.classification.transforms import fit_pca
from lsgavit import create_model

SEED = 3
RECIPES: dict[str, dict[str, Any]] = {
    "released": {"epochs": 2},
    "everything": {
        **{"epochs": 2, "augmentation": True, "schedule": "cosine", "ema": 0.6, "gradient_accumulation": 2},
        "batch_size": 8,
    },
}


def by_hand(
    cube: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    batch_size: int = 16,
    gradient_accumulation: int = 1,
    augmentation: bool = False,
    schedule: str = "constant",
    ema: float = 0.0,
) -> dict[str, Tensor]:
    """Adam, 5e-4, cross-entropy over windows of 5 × 5 pixels of 4 whitened principal components."""
    whitened = fit_pca(cube, 4).apply(cube)  # in test_data.py against their definition; signs are free
    padded = np.pad(whitened, ((2, 2), (2, 2), (0, 0)))
    train_pixels = stratified_split(labels, 0.15, seed=SEED).train
    torch.manual_seed(SEED)
    model = create_model(image_size=5, bands=4, num_classes=3).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=5e-4, fused=True)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    updates = epochs * math.ceil(len(train_pixels) / (batch_size * gradient_accumulation))
    keys = [
        (epoch, index)
        for epoch in range(updates)
        for index in np.random.default_rng([SEED, epoch]).permutation(len(train_pixels))
    ]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    for update in range(updates):
        if schedule == "cosine":
            optimizer.param_groups[0]["lr"] = 5e-4 * (1 + math.cos(math.pi * update / updates)) / 2
        optimizer.zero_grad()
        for batch in batches[update * gradient_accumulation : (update + 1) * gradient_accumulation]:
            windows = []
            for epoch, index in batch:
                row, column = divmod(train_pixels[index], labels.shape[1])
                window = padded[row : row + 5, column : column + 5]
                if augmentation:
                    turns = np.random.default_rng([SEED, epoch, index]).integers(8)
                    window = np.rot90(window[:, ::-1] if turns >= 4 else window, turns % 4)
                windows.append(window.transpose(2, 0, 1))
            classes = labels.flat[[train_pixels[index] for _, index in batch]] - 1
            inputs = torch.tensor(np.stack(windows), dtype=torch.float32)
            (F.cross_entropy(model(inputs), torch.tensor(classes)) / gradient_accumulation).backward()
        optimizer.step()
        for name, value in model.state_dict().items():
            averaged = ema and update and name in dict(model.named_parameters())
            average[name] = ema * average[name] + (1 - ema) * value if averaged else value.clone()
    return average


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_trainer_is_the_loop_by_hand(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = write_scenes(tmp_path) | {"seed": SEED, **RECIPES[recipe]}
    with np.load(tmp_path / "one.npz") as file:
        expected = by_hand(file["cube"], file["labels"], **RECIPES[recipe])
    found = train(load_trainer(monkeypatch), tmp_path / "run", flags)
    assert found.keys() == expected.keys()
    # Biases that a batch norm follows have no gradient but rounding, of which Adam makes whole steps; means follow.
    free = {
        f"tokenizer.{name}" for name in ("conv3d.bias", "conv2d.bias", "norm3d.running_mean", "norm2d.running_mean")
    }
    for name in expected.keys() - free:
        torch.testing.assert_close(
            found[name], expected[name], rtol=0, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
