"""The blocks fulfil the contract of blocks for other networks; without gain they are the paper's modules."""

from __future__ import annotations

from torch import Tensor, nn

from essaformer.blocks import ESSABlock
from support.blocks import BlockContract


class TestESSABlock(BlockContract):
    block = staticmethod(ESSABlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.attention(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
