"""Repeat the paper's ablation in one table: plain attention, light, Gaussian, light + Gaussian; and the released form.

    python lsgavit/ablation.py                                                       the demo's scene, one seed
    python lsgavit/ablation.py --preset houston2018_crop --data-root DIR --seeds 5 6 7
    python lsgavit/ablation.py --preset houston2018_crop --data-root DIR --split disjoint --seeds 5 6 7

All flags except --variants, --seeds and --output are passed to train.py, so any scene and recipe can be used.
Operations are counted and times measured on 32 windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import command
from common.measuring.ablation import ablate
from lsgavit import LSGAViT
from lsgavit.checkpoints import load_model

_TITLES = {
    "lsgavit": "light + token-index bias + token mixing (released)",
    "lsgavit_plain": "plain attention",
    "lsgavit_light": "light",
    "lsgavit_gaussian": "Gaussian",
    "lsgavit_paper": "light + Gaussian (paper)",
    "lsgavit_spatial": "light + Gaussian + token mixing",
}
VARIANTS = {name: (title, () if name == "lsgavit" else ("--model", name)) for name, title in _TITLES.items()}


def example(model: LSGAViT) -> tuple[Tensor, ...]:
    """Return 32 windows as the network's input."""
    return (torch.rand(32, model.bands, *model.image_size),)


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    metrics = ("OA", "AA", "kappa")
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=metrics, seeds=(5,), together=True)


if __name__ == "__main__":
    main()
