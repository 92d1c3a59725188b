"""The blocks fulfil the contract of blocks for other networks; without gain they are the paper's modules."""

from __future__ import annotations

from torch import Tensor, nn

from amgcfn.blocks import CAFMBlock
from support.blocks import BlockContract


class TestCAFMBlock(BlockContract):
    block = staticmethod(CAFMBlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return sum(block.fusion(x, block.branch(x)))
