"""A simple U-Net, as an example of a network that belongs to no library."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def twice(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels; `(B, 3, H, W)` with H and W multiples of 4 → logits `(B, classes, H, W)`."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = twice(3, width), twice(width, 2 * width)
        self.middle = twice(2 * width, 4 * width)
        self.enlarge2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = twice(4 * width, 2 * width)
        self.enlarge1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = twice(2 * width, width)
        self.classes = nn.Conv2d(width, classes, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of every pixel."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.middle(self.pool(second))
        y = self.up2(torch.cat([second, self.enlarge2(y)], dim=1))
        y = self.up1(torch.cat([first, self.enlarge1(y)], dim=1))
        return self.classes(y)
