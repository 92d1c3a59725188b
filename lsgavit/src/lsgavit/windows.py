"""Windows around pixels, cut from one padded scene on demand.

The released script copies the window of every labelled pixel into one array, several times: for
Pavia University 42,776 × 9 × 9 × 36 values or 1 GB per copy. Here the padded scene (30 MB) is on the
device, and a batch of windows is read from it by one indexing operation.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError


class SceneWindows:
    """The windows around the pixels of a scene; beyond the scene's border they are zero, as released.

    Args:
        scene: `(H, W, bands)` float array, usually principal components.
        size: height and width of the windows; a pixel is at (height // 2, width // 2) in its window.

    Attributes:
        padded: `(H + height - 1, W + width - 1, bands)`.

    Raises:
        UserError: the window is larger than the scene.
    """

    def __init__(self, scene: np.ndarray | Tensor, size: tuple[int, int]) -> None:
        height, width = size
        rows, columns, _ = scene.shape
        if height > rows or width > columns:
            raise UserError(
                f"a window of {height} × {width} pixels is larger than the scene of {rows} × {columns}; "
                "choose a larger scene, or a network of smaller windows"
            )
        self.shape, self.size = (rows, columns), (height, width)
        before, left = height // 2, width // 2
        self.padded = F.pad(
            torch.as_tensor(scene), (0, 0, left, width - 1 - left, before, height - 1 - before)
        ).contiguous()

    def to(self, device: torch.device | str) -> Self:
        """Move the scene to a device if its memory suffices; otherwise the scene stays where it is."""
        device = torch.device(device)
        needed = 2 * self.padded.nbytes
        if device.type != "cuda" or torch.cuda.mem_get_info(device)[0] > needed:
            self.padded = self.padded.to(device)
        return self

    def __len__(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, pixels: Tensor) -> Tensor:
        """Return windows `(n, bands, height, width)` around flat pixel indices `(n,)`, on the scene's device."""
        pixels = pixels.to(self.padded.device)
        (height, width), (_, across, bands) = self.size, self.padded.shape
        corner = pixels // self.shape[1] * across + pixels % self.shape[1]
        down, right = (torch.arange(side, device=pixels.device) for side in self.size)
        places = corner[:, None, None] + down[:, None] * across + right
        # Copying whole spectra and transposing them is faster than copying single values.
        spectra = self.padded.flatten(0, 1).index_select(0, places.flatten())
        transposed = spectra.view(len(pixels), height * width, bands).transpose(1, 2).contiguous()
        return transposed.view(len(pixels), bands, height, width)
