"""The blocks keep the contract of blocks for other networks, and without gain they are the paper's modules."""

from __future__ import annotations

from amgcfn.blocks import CAFMBlock
from support.blocks import BlockContract


class TestCAFMBlock(BlockContract):
    block = staticmethod(CAFMBlock)
