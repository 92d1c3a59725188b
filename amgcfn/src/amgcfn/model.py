"""AMGCFN: Attention Multihop Graph and Multiscale Convolutional Fusion Network.

Paper: IEEE TGRS 2023, doi 10.1109/TGRS.2023.3265879. The whole scene is one sample: one forward
pass classifies every pixel.

Differs from the authors' release in two ways, neither of which changes a number:

- It returns logits; the release returns their softmax, whose logarithm then overflows.
- A pixel looks its superpixel up by its label; the release multiplies with a dense
  (pixels × superpixels) assignment matrix, as `literal.py` does.

`fast/` computes the same with less time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amgcfn import fast
from amgcfn.attention import NodeAttention, PixelAttention
from amgcfn.cafm import CAFM
from amgcfn.convolution import ConvolutionLevel
from amgcfn.fast.head import scene_logits
from amgcfn.graph_convolution import GraphBlock
from common.checkpoints import Pretrained

HOPS = 3
LEVELS = 3


class AMGCFN(Pretrained, nn.Module):
    """The published network for one scene.

    Args:
        bands: spectral bands of the cube.
        num_classes: classes K.
        node_features: channels of a superpixel, 3 in the paper.
        graph_dim, conv_dim: width of the two branches; CAFM needs them equal.

    Shape:
        see `forward`.
    """

    def __init__(
        self, bands: int, num_classes: int, node_features: int = 3, graph_dim: int = 64, conv_dim: int = 64
    ) -> None:
        super().__init__()
        for name, value in (("bands", bands), ("num_classes", num_classes), ("node_features", node_features)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if graph_dim != conv_dim or conv_dim % 2:
            # Six heads share 3 · dim channels.
            raise ValueError(f"the branches need one even width, got graph_dim {graph_dim} and conv_dim {conv_dim}")
        self.bands, self.num_classes, self.node_features = bands, num_classes, node_features
        channels = HOPS * graph_dim
        self.embed = nn.Linear(node_features, graph_dim)
        self.embed_norm = nn.BatchNorm1d(graph_dim)
        self.graph_blocks = nn.ModuleList(GraphBlock(graph_dim) for _ in range(HOPS))
        self.node_attention = NodeAttention(channels)
        self.levels = nn.ModuleList(
            ConvolutionLevel(conv_dim if level else bands, conv_dim, concatenate=level == LEVELS - 1)
            for level in range(LEVELS)
        )
        self.pixel_attention = PixelAttention(channels)
        self.fusion = CAFM(channels)
        self.graph_classifier = nn.Linear(channels, num_classes)
        self.conv_classifier = nn.Linear(channels, num_classes)
        self.fused_classifier = nn.Linear(2 * channels, num_classes)

    def forward(
        self, cube: Tensor, node_features: Tensor, segments: Tensor, hops: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Classify every pixel of a scene.

        Runs in the parameters' own precision also under autocast: the raw cube and the softmax
        over all pixels need it.

        Args:
            cube: `(H, W, bands)`, raw values.
            node_features: `(N, node_features)`.
            segments: `(H, W)` int64, the superpixel of each pixel; each of 0 … N − 1 occurs.
            hops: three `(N, N)` hop graphs, dense or sparse.

        Returns:
            logits `(H·W, num_classes)` of the fused, the convolution and the graph classifier.
        """
        self._check(cube, node_features, segments, hops)
        with torch.autocast(cube.device.type, enabled=False):
            nodes = self.graph_branch(node_features, hops)
            x = cube
            for level in self.levels:
                x = level(x)
            if fast.usable(x):
                return scene_logits(self, x, nodes, segments)
            graph = nodes[segments].permute(2, 0, 1)[None]
            conv = self.pixel_attention(x.permute(2, 0, 1)[None])
            conv, graph = self.fusion(conv, graph)
            conv, graph = (branch.flatten(2)[0].T for branch in (conv, graph))
            fused = self.fused_classifier(torch.cat([graph, conv], dim=1))
            return fused, self.conv_classifier(conv), self.graph_classifier(graph)

    def graph_branch(self, node_features: Tensor, hops: Sequence[Tensor]) -> Tensor:
        """Return the attended `(N, 192)` nodes; block i mixes over the i-hop graph."""
        nodes = self.embed_norm(self.embed(node_features))
        outputs = []
        for block, hop in zip(self.graph_blocks, hops, strict=True):
            nodes = block(nodes, hop)
            outputs.append(nodes)
        return self.node_attention(torch.cat(outputs, dim=1))

    def _check(self, cube: Tensor, node_features: Tensor, segments: Tensor, hops: Sequence[Tensor]) -> None:
        if cube.ndim != 3 or cube.shape[2] != self.bands:
            raise ValueError(f"expected a cube (height, width, {self.bands}), got {tuple(cube.shape)}")
        if segments.shape != cube.shape[:2]:
            raise ValueError(f"segments {tuple(segments.shape)} do not cover the cube {tuple(cube.shape[:2])}")
        if node_features.ndim != 2 or node_features.shape[1] != self.node_features:
            raise ValueError(f"expected node features (nodes, {self.node_features}), got {tuple(node_features.shape)}")
        count = len(node_features)
        if len(hops) != HOPS or any(hop.shape != (count, count) for hop in hops):
            raise ValueError(f"expected {HOPS} hop graphs ({count}, {count}), got {[tuple(h.shape) for h in hops]}")
