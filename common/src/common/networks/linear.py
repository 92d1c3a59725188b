"""Linear layers that use oneDNN on a CPU when no gradient is needed.

PyTorch multiplies float32 matrices with MKL, which on AMD's processors uses vectors of 256 bits. oneDNN uses all 512
where the processor has them: 230 instead of 100 GFLOP/s on one core of an EPYC, for layers of 64 to 1536 channels. On
vectors of 256 bits it is as fast or up to 15 % faster. The results differ by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_POINTWISE = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""A private operator of torch that its compiler calls too; `F.linear` replaces it in versions that lack it."""


class Linear(nn.Linear):
    """`nn.Linear` that calls `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` → `(..., C')`."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """Compute `F.linear`, followed by GELU if `gelu` is true.

    Args:
        x: `(..., C)`.
        weight: `(C', C)`.
        bias: `(C',)`.

    Returns:
        `(..., C')`.
    """
    if _POINTWISE is not None and _fits(x, weight):
        x, weight = x.contiguous(), weight.contiguous()  # oneDNN takes minutes for views of larger matrices
        return _POINTWISE(x, weight, bias, "gelu" if gelu else "none", [], "none")
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


def _fits(x: Tensor, weight: Tensor) -> bool:
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    cpu = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if not cpu or torch.is_autocast_enabled("cpu"):
        return False
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return not learning and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)  # type: ignore[attr-defined]
