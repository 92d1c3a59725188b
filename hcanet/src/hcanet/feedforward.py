"""MSFN: a gated feed-forward network with convolutions of three dilations."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hcanet import fast


class MSFN(nn.Module):
    """Multi-scale feed-forward network.

        W_out (GELU(D₁ x₁) · D₂ x₂ · D₃ x₃),   x₁, x₂, x₃ = W_in x

    D_r is a depth-wise 3×3 convolution of dilation r; GELU is the exact one.

    Args:
        dim: channels n.
        expansion: each of the three maps has `int(expansion · n)` channels.
        bias: whether the convolutions have biases.

    Shape:
        `(B, n, H, W)`, any H and W → the same.

    Raises:
        ValueError: `dim` or `expansion` is out of range; in `forward`, the input has another number of channels.
    """

    def __init__(self, dim: int, expansion: float = 2.66, *, bias: bool = False) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        if dim < 1 or hidden < 1:
            raise ValueError(f"dim and int(dim · expansion) must be at least 1, got dim {dim}, expansion {expansion}")
        self.dim, self.hidden = dim, hidden
        self.project_in = nn.Conv2d(dim, 3 * hidden, 1, bias=bias)
        self.dwconv1 = nn.Conv2d(hidden, hidden, 3, padding=1, dilation=1, groups=hidden, bias=bias)
        self.dwconv2 = nn.Conv2d(hidden, hidden, 3, padding=2, dilation=2, groups=hidden, bias=bias)
        self.dwconv3 = nn.Conv2d(hidden, hidden, 3, padding=3, dilation=3, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        if x.ndim != 4 or x.shape[1] != self.dim:
            raise ValueError(f"expected (batch, {self.dim}, height, width), got {tuple(x.shape)}")
        if fast.usable(x):
            return fast.msfn(self, x)
        x1, x2, x3 = self.project_in(x).chunk(3, dim=1)
        return self.project_out(F.gelu(self.dwconv1(x1)) * self.dwconv2(x2) * self.dwconv3(x3))


class PlainFeedForward(nn.Sequential):
    """`W_out GELU(W_in x)` of every pixel, with as many 1×1 weights as `MSFN`; the ablation compares both."""

    def __init__(self, dim: int, expansion: float = 2.66, *, bias: bool = False) -> None:
        hidden = 2 * int(dim * expansion)
        super().__init__(nn.Conv2d(dim, hidden, 1, bias=bias), nn.GELU(), nn.Conv2d(hidden, dim, 1, bias=bias))
