"""The blocks keep the contract of blocks for other networks, and without gain they are the paper's modules."""

from __future__ import annotations

from biformer.blocks import BRABlock
from support.blocks import BlockContract


class TestBRABlock(BlockContract):
    block = staticmethod(BRABlock)
