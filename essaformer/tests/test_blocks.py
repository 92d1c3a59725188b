"""The blocks keep the contract of blocks for other networks, and without gain they are the paper's modules."""

from __future__ import annotations

from essaformer.blocks import ESSABlock
from support.blocks import BlockContract


class TestESSABlock(BlockContract):
    block = staticmethod(ESSABlock)
