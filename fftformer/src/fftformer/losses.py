"""The spectral part of the published loss, which is L1 of the images + 0.1 · L1 of their spectra."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two 2-D spectra; real and imaginary parts count equally.

    The transform is linear, so one FFT of the difference of the images is enough. It is computed in float32, also
    under autocast. Source: the released training code (`FFTLoss`).

    Args:
        output, target: `(B, C, H, W)`.

    Returns:
        a scalar. The transform is not normalised, so the value grows with the size of the images.
    """
    with torch.autocast(output.device.type, enabled=False):
        spectrum = torch.fft.fft2(output.float() - target.float())
        return torch.view_as_real(spectrum).abs().mean()
