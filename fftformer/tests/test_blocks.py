"""The blocks have all properties of blocks for other networks; without gain they are the paper's modules."""

from __future__ import annotations

from torch import Tensor, nn

from fftformer.blocks import DFFNBlock, FSASBlock
from support.blocks import BlockContract


class TestFSASBlock(BlockContract):
    block = staticmethod(FSASBlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.attention(x)


class TestDFFNBlock(BlockContract):
    block = staticmethod(DFFNBlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.feed_forward(x)
