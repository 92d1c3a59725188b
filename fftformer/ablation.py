"""Ablation of FFTformer in one table: FSAS, DFFN, attention only in the decoder.

    python fftformer/ablation.py                                                     the demo's photographs, one seed
    python fftformer/ablation.py --preset gopro_released --data-root DIR --iterations 10000 --seeds 0 1 2

All flags except --variants, --seeds and --output are those of train.py, so any data set and recipe can be used.
Operations (with the transforms of patches as matrix products) and times are for one image of 128 × 128 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import command
from common.measuring.ablation import ablate
from fftformer.checkpoints import load_model

VARIANTS = {
    "released": ("FSAS in the decoder, DFFN (released)", ()),
    "conjugate": ("FSAS with a conjugate, as the text has it", ("--conjugate",)),
    "window": ("window attention instead of FSAS", ("--network", "attention=window")),
    "none": ("no attention", ("--network", "attention=none")),
    "symmetric": ("FSAS in the encoder too", ("--network", "encoder_attention=True")),
    "plain": ("DFFN without spectra", ("--network", "spectral=False")),
}


def example(_: object) -> tuple[Tensor, ...]:
    """One image."""
    return (torch.rand(1, 3, 128, 128),)


@command
def main() -> None:
    """Train and measure every variant and print the table."""
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=("PSNR (dB)", "SSIM (3-D)", "SSIM"))


if __name__ == "__main__":
    main()
