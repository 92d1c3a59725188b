"""Ablation of BiFormer in one table: routing, regions, local terms, Swin-T's layout.

    python biformer/ablation.py                                                      the demo's images, one seed
    python biformer/ablation.py --preset cifar10_subset --data-root DIR --epochs 5 --seeds 0 1 2

All flags except --variants, --seeds and --output are those of train.py, so any data set and recipe can be used.
Operations and times are for eight images of the size that was used in training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biformer import BiFormer
from biformer.checkpoints import load_model
from common.errors import command
from common.measuring.ablation import ablate

VARIANTS = {
    "released": ("routing, top-k 1 4 16 (released)", ()),
    "top_k_1": ("top-k 1 1 1", ("--network", "top_k=(1, 1, 1)")),
    "top_k_4": ("top-k 4 4 4", ("--network", "top_k=(4, 4, 4)")),
    "full": ("full attention", ("--network", "top_k=(10000, 10000, 10000)")),
    "window": ("window attention: each region alone", ("--network", "top_k=(0, 0, 0)")),
    "regions": ("2 × 2 regions", ("--num-regions", "2")),
    "no_lepe": ("no local terms", ("--network", "lepe=False")),
    "stl": ("Swin-T's layout", ("--model", "biformer_stl")),
}


def example(model: BiFormer) -> tuple[Tensor, ...]:
    """Eight images."""
    return (torch.rand(8, 3, model.image_size, model.image_size),)


@command
def main() -> None:
    """Train and measure every variant and print the table."""
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=("top-1", "top-5"))


if __name__ == "__main__":
    main()
