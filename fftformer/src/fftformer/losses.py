"""The published objective: L1 between images plus a tenth of L1 between their spectra."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D spectra, real and imaginary parts counted alike.

    The transform is linear, so one FFT of the difference serves for both images. float32
    whatever the autocast type. Source: the released training code (`FFTLoss`).

    Args:
        output, target: `(B, C, H, W)`.

    Returns:
        a scalar; unnormalised transforms, so it grows with the image's size.
    """
    with torch.autocast(output.device.type, enabled=False):
        spectrum = torch.fft.fft2(output.float() - target.float())
        return torch.view_as_real(spectrum).abs().mean()
