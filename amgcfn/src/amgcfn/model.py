"""AMGCFN: Attention Multihop Graph and Multiscale Convolutional Fusion Network.

Paper: IEEE TGRS 2023, doi 10.1109/TGRS.2023.3265879. The whole scene is one sample: one forward
pass classifies every pixel.

Differences from the authors' release, which do not change results:

- The network returns logits; the release returns their softmax, whose logarithm then overflows.
- A label per pixel selects the pixel's superpixel; the release multiplies by a dense (pixels × superpixels) assignment
  matrix, as `literal.py` does.

`fast/` computes the same in less time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from amgcfn import fast
from amgcfn.attention import NodeAttention, PixelAttention
from amgcfn.cafm import CAFM
from amgcfn.convolution import ConvolutionLevel
from amgcfn.fast.head import scene_logits
from amgcfn.graph_convolution import GraphBlock
from common.networks.weights import Pretrained

HOPS = 3
LEVELS = 3


class AMGCFN(Pretrained, nn.Module):
    """The published network for one scene.

    Args:
        bands: spectral bands of the cube.
        num_classes: classes K.
        node_features: channels of a superpixel, 3 in the paper.
        graph_dim, conv_dim: widths of the two branches, which must be equal for CAFM.
        branches: `"both"`, or `"graph"` or `"convolution"` alone, with its own classifier.
        block_hops: the hop graph that each of the three graph blocks uses.
        fusion: `"cafm"`, or `"sum"`: the branches are added, without cross-attention.

    Shape:
        see `forward`.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int,
        node_features: int = 3,
        graph_dim: int = 64,
        conv_dim: int = 64,
        *,
        branches: Literal["both", "graph", "convolution"] = "both",
        block_hops: Sequence[int] = (1, 2, 3),
        fusion: Literal["cafm", "sum"] = "cafm",
    ) -> None:
        super().__init__()
        for name, value in (("bands", bands), ("num_classes", num_classes), ("node_features", node_features)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if graph_dim != conv_dim or conv_dim % 2:
            # Six heads share 3 · dim channels.
            raise ValueError(f"the branches need one even width, got graph_dim {graph_dim} and conv_dim {conv_dim}")
        if len(block_hops) != HOPS or not all(1 <= hop <= HOPS for hop in block_hops):
            raise ValueError(f"block_hops needs {HOPS} numbers from 1 to {HOPS}, got {tuple(block_hops)}")
        if branches not in ("both", "graph", "convolution") or fusion not in ("cafm", "sum"):
            raise ValueError(
                f"branches must be both, graph or convolution and fusion cafm or sum, got {branches!r} and {fusion!r}"
            )
        self.bands, self.num_classes, self.node_features = bands, num_classes, node_features
        self.branches, self.block_hops = branches, tuple(block_hops)
        self.whole = branches == "both" and fusion == "cafm"
        channels = HOPS * graph_dim
        if branches != "convolution":
            self.embed = nn.Linear(node_features, graph_dim)
            self.embed_norm = nn.BatchNorm1d(graph_dim)
            self.graph_blocks = nn.ModuleList(GraphBlock(graph_dim) for _ in range(HOPS))
            self.node_attention = NodeAttention(channels)
        if branches != "graph":
            self.levels = nn.ModuleList(
                ConvolutionLevel(conv_dim if level else bands, conv_dim, concatenate=level == LEVELS - 1)
                for level in range(LEVELS)
            )
            self.pixel_attention = PixelAttention(channels)
        if self.whole:
            self.fusion = CAFM(channels)
        if branches != "convolution":
            self.graph_classifier = nn.Linear(channels, num_classes)
        if branches != "graph":
            self.conv_classifier = nn.Linear(channels, num_classes)
        if branches == "both":
            self.fused_classifier = nn.Linear(2 * channels if self.whole else channels, num_classes)

    def forward(
        self, cube: Tensor, node_features: Tensor, segments: Tensor, hops: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Classify every pixel of a scene.

        Runs in the parameters' precision even under autocast, because the raw cube and the softmax over all pixels
        need it.

        Args:
            cube: `(H, W, bands)`, raw values.
            node_features: `(N, node_features)`.
            segments: `(H, W)` int64, the superpixel of each pixel; each of 0 … N − 1 occurs.
            hops: three `(N, N)` hop graphs, dense or sparse.

        Returns:
            logits `(H·W, num_classes)` of the fused, the convolution and the graph classifier, or of a single branch.
        """
        self._check(cube, node_features, segments, hops)
        with torch.autocast(cube.device.type, enabled=False):
            if self.branches != "convolution":
                nodes = self.graph_branch(node_features, hops)
            if self.branches == "graph":
                return (self.graph_classifier(nodes)[segments.flatten()],)
            x = cube
            for level in self.levels:
                x = level(x)
            if self.whole and fast.usable(x):
                return scene_logits(self, x, nodes, segments)
            conv = self.pixel_attention(x.permute(2, 0, 1)[None])
            if self.branches == "convolution":
                return (self.conv_classifier(conv.flatten(2)[0].T),)
            graph = nodes[segments].permute(2, 0, 1)[None]
            if self.whole:
                conv, graph = self.fusion(conv, graph)
            conv, graph = (branch.flatten(2)[0].T for branch in (conv, graph))
            fused = self.fused_classifier(torch.cat([graph, conv], dim=1) if self.whole else graph + conv)
            return fused, self.conv_classifier(conv), self.graph_classifier(graph)

    def graph_branch(self, node_features: Tensor, hops: Sequence[Tensor]) -> Tensor:
        """Return the attended nodes `(N, 192)`; each block uses its hop graph of `block_hops`."""
        nodes = self.embed_norm(self.embed(node_features))
        outputs = []
        for block, hop in zip(self.graph_blocks, self.block_hops, strict=True):
            nodes = block(nodes, hops[hop - 1])
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
