"""Compare variants of ESSAformer in one table: order of the attention, no attention, number of refinements.

    python essaformer/ablation.py                                                    the demo's scene, one seed
    python essaformer/ablation.py --preset jasper_ridge_x2 --data-root DIR --iterations 100 --seeds 0 1 2

All flags except --variants, --seeds and --output are passed to train.py, so any data set and recipe can be used.
Operations are counted and times measured on one image of 32 × 32 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import command
from common.measuring.ablation import ablate
from essaformer import ESSAformer
from essaformer.checkpoints import load_model

VARIANTS = {
    "released": ("order 1, three refinements (released)", ()),
    "order_2": ("order 2", ("--order", "2")),
    "order_0": ("order 0: values alone", ("--order", "0")),
    "none": ("no attention", ("--network", "order=None")),
    "two": ("two refinements", ("--network", "refinements=2")),
    "one": ("one refinement", ("--network", "refinements=1")),
}


def example(model: ESSAformer) -> tuple[Tensor, ...]:
    """Return one image as the network's input."""
    return (torch.rand(1, model.bands, 32, 32),)


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    metrics = ("PSNR (dB)", "SSIM", "SAM (°)")
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=metrics)


if __name__ == "__main__":
    main()
