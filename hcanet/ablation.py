"""Compare variants of HCANet in one table: global and local branch, both forms of the local branch, MSFN.

    python hcanet/ablation.py                                                        the demo's scene, one seed
    python hcanet/ablation.py --preset abu --data-root DIR --iterations 500 --seeds 0 1 2

All flags except --variants, --seeds and --output are passed to train.py, so any data set and recipe can be used.
Operations are counted and times measured on one image of 64 × 64 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import command
from common.measuring.ablation import ablate
from hcanet import HCANet, load_model

VARIANTS = {
    "released": ("global + local as released", ("--local-mix", "released")),
    "pixel": ("global + local as the paper means it", ("--local-mix", "pixel")),
    "global": ("global alone", ("--local-mix", "none")),
    "local": ("local alone, as released", ("--local-mix", "released", "--network", "attention=False")),
    "local_pixel": ("local alone, as the paper means it", ("--local-mix", "pixel", "--network", "attention=False")),
    "plain": ("plain feed-forward instead of MSFN", ("--local-mix", "released", "--network", "feed_forward=plain")),
}


def example(model: HCANet) -> tuple[Tensor, ...]:
    """Return one image as the network's input."""
    return (torch.rand(1, model.bands, 64, 64),)


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=("PSNR (dB)", "SSIM", "SAM (rad)"))


if __name__ == "__main__":
    main()
