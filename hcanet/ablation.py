"""What the parts of HCANet are worth, in one table: global and local branch, both local forms, MSFN.

    python hcanet/ablation.py                                                        the demo's scene, one seed
    python hcanet/ablation.py --preset abu --data-root DIR --iterations 500 --seeds 0 1 2

Flags beside --variants, --seeds and --output are those of train.py, so it takes any data set and recipe. Operations
are counted and times taken on one image of 64 × 64 pixels.
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
    """One image."""
    return (torch.rand(1, model.bands, 64, 64),)


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=("PSNR (dB)", "SSIM", "SAM (rad)"))


if __name__ == "__main__":
    main()
