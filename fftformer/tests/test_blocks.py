"""The blocks keep the contract of blocks for other networks, and without gain they are the paper's modules."""

from __future__ import annotations

from fftformer.blocks import DFFNBlock, FSASBlock
from support.blocks import BlockContract


class TestFSASBlock(BlockContract):
    block = staticmethod(FSASBlock)


class TestDFFNBlock(BlockContract):
    block = staticmethod(DFFNBlock)
