"""AMGCFN: Attention Multihop Graph and Multiscale Convolutional Fusion Network.

Paper: IEEE TGRS 2023, doi 10.1109/TGRS.2023.3265879. The whole scene is one sample: one forward
pass classifies every pixel.

Differs from the authors' release in three ways, none of which changes a number:

- It returns logits; the release returns their softmax, whose logarithm then overflows.
- A pixel looks its superpixel up by its label; the release multiplies with a dense
  (pixels × superpixels) assignment matrix.
- `forward` computes the fusion on what it depends on (see `_fuse`); `literal` writes it as the
  paper does, from the same parts and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from amgcfn.attention import NodeAttention, PixelAttention
from amgcfn.cafm import CAFM
from amgcfn.convolution import ConvolutionLevel
from amgcfn.graph_convolution import GraphBlock
from amgcfn.pixels import describe, head_means, summarise
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
            return self._fuse(x, nodes, segments)

    def graph_branch(self, node_features: Tensor, hops: Sequence[Tensor]) -> Tensor:
        """Return the attended `(N, 192)` nodes; block i mixes over the i-hop graph."""
        nodes = self.embed_norm(self.embed(node_features))
        outputs = []
        for block, hop in zip(self.graph_blocks, hops, strict=True):
            nodes = block(nodes, hop)
            outputs.append(nodes)
        return self.node_attention(torch.cat(outputs, dim=1))

    def literal(
        self,
        cube: Tensor,
        node_features: Tensor,
        segments: Tensor,
        hops: Sequence[Tensor],
        assignment: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same logits as the paper writes them: dense assignment matrix, full maps, no shortcut.

        Args:
            assignment: `(H·W, N)` one-hot rows, made from `segments` when absent; the rest as in `forward`.
        """
        if assignment is None:
            assignment = one_hot(segments, len(node_features), cube.dtype)
        graph = assignment @ self.graph_branch(node_features, hops)
        x = cube
        for level in self.levels:
            x = cast(ConvolutionLevel, level).literal(x)
        conv = self.pixel_attention(x.permute(2, 0, 1)[None])
        conv, graph = self.fusion(conv, graph.T.reshape(1, -1, *segments.shape))
        conv, graph = (branch.flatten(2)[0].T for branch in (conv, graph))
        fused = self.fused_classifier(torch.cat([graph, conv], dim=1))
        return fused, self.conv_classifier(conv), self.graph_classifier(graph)

    def _fuse(self, x: Tensor, nodes: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """CAFM and the classifiers, on nodes where a map is constant per superpixel, else in blocks of pixels.

        out_i = f_i (1 + w_i), so a classifier gives (1 + w_i) · (f_i Wᵀ) + b: only products with
        thin matrices are needed, on N nodes for the graph branch.
        """
        conv, means = head_means(x.flatten(0, 1), self.pixel_attention.heads)
        attention = self.pixel_attention.weight(means, *segments.shape)
        conv, attention, average, maximum = describe(conv, attention)
        conv_mixing, node_mixing = self.channel_mixing(average, maximum, nodes, segments)
        products, peak = summarise(conv, attention, self.thin_matrix(conv_mixing), conv_mixing)
        return self.classify(products, peak, nodes @ node_mixing.T, nodes, segments)

    def channel_mixing(
        self, average: Tensor, maximum: Tensor, nodes: Tensor, segments: Tensor
    ) -> tuple[Tensor, Tensor]:
        """CAFM's mixing matrices of both branches.

        Averages and maxima over the pixels of the graph branch are those over its nodes, weighted
        by their size.

        Args:
            average, maximum: `(192,)`, of the attended convolution map over pixels.
            nodes: `(N, 192)`.
            segments: `(H, W)`.
        """
        size = torch.bincount(segments.reshape(-1), minlength=len(nodes)).to(nodes.dtype)
        node_average, node_maximum = size @ nodes / segments.numel(), nodes.max(dim=0).values
        mixing = self.fusion.channel_mixing(average[None], maximum[None], node_average[None], node_maximum[None])
        return mixing[0][0], mixing[1][0]

    def thin_matrix(self, conv_mixing: Tensor) -> Tensor:
        """What the attended convolution map is multiplied with: two classifiers, and the mean over mixed channels."""
        conv_half = self.fused_classifier.weight.chunk(2, dim=1)[1]
        return torch.cat([conv_half, self.conv_classifier.weight, conv_mixing.mean(dim=0, keepdim=True)]).T

    def classify(
        self, products: Tensor, peak: Tensor, mixed_nodes: Tensor, nodes: Tensor, segments: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weight both branches in space and classify.

        Args:
            products: `(H·W, 2 K + 1)`, attended convolution map times `thin_matrix`.
            peak: `(H·W,)`, its maximum over mixed channels.
            mixed_nodes: `(N, 192)`, re-mixed nodes.
            nodes: `(N, 192)`.
            segments: `(H, W)`.
        """
        labels = segments.reshape(-1)
        fused_conv, conv, mean = products.split([self.num_classes, self.num_classes, 1], dim=1)
        conv_weight = self._spatial_weight(mean[:, 0], peak, segments)
        node_mean, node_peak = mixed_nodes.mean(dim=1), mixed_nodes.max(dim=1).values
        node_weight = self._spatial_weight(node_mean[labels], node_peak[labels], segments)
        graph_half = self.fused_classifier.weight.chunk(2, dim=1)[0]
        node_logits = nodes @ torch.cat([graph_half, self.graph_classifier.weight]).T
        fused_graph, graph = (node_logits.index_select(0, labels) * node_weight).chunk(2, dim=1)
        fused = fused_graph + fused_conv * conv_weight + self.fused_classifier.bias
        return fused, conv * conv_weight + self.conv_classifier.bias, graph + self.graph_classifier.bias

    def _spatial_weight(self, mean: Tensor, maximum: Tensor, segments: Tensor) -> Tensor:
        """CAFM's 1 + w, `(H·W, 1)`, from the mean and maximum over channels of a re-mixed map, `(H·W,)`."""
        maps = torch.stack([mean, maximum]).view(1, 2, *segments.shape)
        return 1 + self.fusion.spatial_weight(maps).view(-1, 1)

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


def one_hot(segments: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the dense `(H·W, count)` assignment matrix Q; only `AMGCFN.literal` uses it."""
    assignment = torch.zeros(segments.numel(), count, dtype=dtype, device=segments.device)
    return assignment.scatter_(1, segments.reshape(-1, 1), 1)
