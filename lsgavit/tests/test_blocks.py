"""The blocks keep the contract of blocks for other networks, and without gain they are the paper's modules."""

from __future__ import annotations

from lsgavit.blocks import LSGABlock
from support.blocks import BlockContract


class TestLSGABlock(BlockContract):
    block = staticmethod(LSGABlock)
