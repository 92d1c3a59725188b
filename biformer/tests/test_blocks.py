"""The blocks have all properties of blocks for other networks; without gain they are the paper's modules."""

from __future__ import annotations

from torch import Tensor, nn

from biformer.blocks import BRABlock
from support.blocks import BlockContract


class TestBRABlock(BlockContract):
    block = staticmethod(BRABlock)
    second_derivatives = False

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
