"""AMGCFN: multihop graph and multiscale convolution fusion network (IEEE TGRS 2023, doi 10.1109/TGRS.2023.3265879)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amgcfn.attention import NodeAttention, PixelAttention
from amgcfn.cafm import CAFM
from amgcfn.convolution import ConvolutionLevel
from amgcfn.graph_convolution import GraphBlock
from common.checkpoints import Pretrained

HOPS = 3
LEVELS = 3


class AMGCFN(Pretrained, nn.Module):
    def __init__(
        self, bands: int, num_classes: int, node_features: int = 3, graph_dim: int = 64, conv_dim: int = 64
    ) -> None:
        super().__init__()
        if graph_dim != conv_dim:
            raise ValueError(f"CAFM needs both branches equally wide, got graph_dim {graph_dim}, conv_dim {conv_dim}")
        self.bands, self.num_classes, self.node_features = bands, num_classes, node_features
        channels = HOPS * graph_dim
        self.embed = nn.Linear(node_features, graph_dim)
        self.embed_norm = nn.BatchNorm1d(graph_dim)
        self.graph_blocks = nn.ModuleList(GraphBlock(graph_dim) for _ in range(HOPS))
        self.node_attention = NodeAttention(channels)
        self.levels = nn.ModuleList(ConvolutionLevel(conv_dim if i else bands, conv_dim) for i in range(LEVELS))
        self.pixel_attention = PixelAttention(channels)
        self.fusion = CAFM(channels)
        self.graph_classifier = nn.Linear(channels, num_classes)
        self.conv_classifier = nn.Linear(channels, num_classes)
        self.fused_classifier = nn.Linear(2 * channels, num_classes)

    def forward(
        self, cube: Tensor, node_features: Tensor, segments: Tensor, hops: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        nodes = self.graph_branch(node_features, hops)
        x = cube.permute(2, 0, 1)[None]
        for level in self.levels[:-1]:
            x = sum(level(x))
        x = self.pixel_attention(torch.cat(self.levels[-1](x), dim=1))
        graph = nodes[segments].permute(2, 0, 1)[None]
        conv, graph = self.fusion(x, graph)
        conv, graph = (t.flatten(2)[0].T for t in (conv, graph))
        fused = self.fused_classifier(torch.cat([graph, conv], dim=1))
        return fused, self.conv_classifier(conv), self.graph_classifier(graph)

    def graph_branch(self, node_features: Tensor, hops: Sequence[Tensor]) -> Tensor:
        nodes = self.embed_norm(self.embed(node_features))
        outputs = []
        for block, hop in zip(self.graph_blocks, hops, strict=True):
            nodes = block(nodes, hop)
            outputs.append(nodes)
        return self.node_attention(torch.cat(outputs, dim=1))
