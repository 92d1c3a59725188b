"""HybridSN: 3-D convolutions, then a 2-D convolution (Roy et al., GRSL 2020, arXiv 1902.06701).

The authors' notebook (github.com/gokriznastic/HybridSN) in PyTorch, with PyTorch's initial weights. The authors'
windows have 25 × 25 pixels. The weights of the last epoch are scored; the notebook keeps those with the best training
accuracy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from tqdm.auto import tqdm

from common.hyperspectral.classification.splits import Split
from common.hyperspectral.classification.transforms import fit_pca
from common.hyperspectral.scene import Scene

BATCH = 256


class HybridSN(nn.Module):
    """Three 3-D convolutions and one 2-D convolution without padding, and three linear layers.

    Args:
        components: principal components of a window, at least 13.
        window: side of a window in pixels, odd, at least 9.
        num_classes: number of classes K.

    Shape:
        `(B, components, window, window)` → logits `(B, K)`.

    Raises:
        ValueError: `components` or `window` is out of range.
    """

    def __init__(self, components: int = 30, window: int = 25, num_classes: int = 16) -> None:
        super().__init__()
        if components < 13 or window < 9 or window % 2 == 0:
            raise ValueError(
                f"HybridSN needs at least 13 components and an odd window of at least 9, got {components} and {window}"
            )
        self.spectral = nn.Sequential(
            nn.Conv3d(1, 8, (7, 3, 3)), nn.ReLU(), nn.Conv3d(8, 16, (5, 3, 3)), nn.ReLU(),
            nn.Conv3d(16, 32, 3), nn.ReLU(),
        )  # fmt: skip
        self.spatial = nn.Sequential(nn.Conv2d(32 * (components - 12), 64, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(64 * (window - 8) ** 2, 256), nn.ReLU(), nn.Dropout(0.4),
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Classify windows."""
        return self.head(self.spatial(self.spectral(x[:, None]).flatten(1, 2)))


def classify(  # noqa: PLR0917
    scene: Scene, split: Split, components: int, window: int, epochs: int, seed: int, device: torch.device
) -> np.ndarray:
    """Train on the training pixels (Adam 1e-3, batches of 256) and return the classes 1..K of the test pixels.

    Components are whitened and fitted on all pixels with data, as in the notebook and in LSGA-ViT's release.
    """
    torch.manual_seed(seed)
    maps = fit_pca(scene.cube, components, pixels=scene.data_pixels).apply(scene.cube)
    padded = F.pad(torch.from_numpy(maps).permute(2, 0, 1), [window // 2] * 4).to(device)
    views = padded.unfold(1, window, 1).unfold(2, window, 1)  # (components, H, W, window, window)

    def windows(pixels: Tensor) -> Tensor:
        return views[:, pixels // scene.shape[1], pixels % scene.shape[1]].transpose(0, 1).contiguous()

    train, test = (torch.from_numpy(part).to(device) for part in (split.train, split.test))
    classes = torch.from_numpy(scene.require_labels().reshape(-1)[split.train] - 1).to(device)
    model = HybridSN(components, window, scene.num_classes).to(device)
    optimizer = Adam(model.parameters(), lr=1e-3)
    for _ in tqdm(range(epochs), unit="epoch", desc=f"HybridSN, seed {seed}", leave=False):
        for batch in torch.randperm(len(train)).to(device).split(BATCH):
            loss = F.cross_entropy(model(windows(train[batch])), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        model.eval()
        return torch.cat([model(windows(batch)).argmax(dim=1) + 1 for batch in test.split(BATCH)]).cpu().numpy()
