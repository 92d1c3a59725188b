"""The objective: L1 or L2, and the global gradient term in its released and its corrected form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def gradient_term(
    difference: Tensor,
    form: Literal["released", "spectral"] = "released",
    reduction: Literal["norm", "mean"] = "norm",
) -> Tensor:
    """Measure the roughness of the error: the sum of horizontal Sobel responses of three views of it.

    The views are the mean over bands, its transpose, and the sum over rows divided by the number of bands.

    Args:
        difference: prediction − target, `(B, bands, H, W)`.
        form: "released" filters the third view `(bands, W)` along the width too; "spectral" filters it along the
            bands, as the term's name says.
        reduction: "norm" is the root of the sum of squares over the whole batch, as released; it grows with
            √(batch · pixels). "mean" is the mean absolute response.
    """
    average = difference.mean(dim=1, keepdim=True)
    along = difference.sum(dim=2)[:, None] / difference.shape[1]
    views = [average, average.transpose(2, 3), along if form == "released" else along.transpose(2, 3)]
    kernel = difference.new_tensor(SOBEL)[None, None]
    # A view smaller than the kernel has no response.
    responses = [F.conv2d(view, kernel) for view in views if min(view.shape[2:]) >= len(SOBEL)]
    measure = torch.linalg.vector_norm if reduction == "norm" else lambda response: response.abs().mean()
    return sum((measure(response) for response in responses), difference.new_zeros(()))


def objective(
    prediction: Tensor,
    target: Tensor,
    *,
    loss: Literal["l1", "l2"] = "l1",
    gradient_weight: float = 1e-3,
    gradient_form: Literal["released", "spectral"] = "released",
    gradient_reduction: Literal["norm", "mean"] = "norm",
) -> Tensor:
    """Return L1 or L2 plus the weighted gradient term, for images `(B, bands, H, W)`."""
    value = F.l1_loss(prediction, target) if loss == "l1" else F.mse_loss(prediction, target)
    if gradient_weight:
        value = value + gradient_weight * gradient_term(prediction - target, gradient_form, gradient_reduction)
    return value
