"""The blocks fulfil the contract of blocks for other networks; without gain they are the paper's modules."""

from __future__ import annotations

import subprocess
import sys

from torch import Tensor, nn

from hcanet.blocks import CAFMBlock, MSFNBlock
from support.blocks import BlockContract


class TestCAFMBlock(BlockContract):
    block = staticmethod(CAFMBlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.attention(x)


class TestMSFNBlock(BlockContract):
    block = staticmethod(MSFNBlock)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.feed_forward(x)


def test_a_block_brings_nothing_but_torch() -> None:
    heavy = "huggingface_hub", "h5py", "skimage", "tyro"
    code = f"import sys, hcanet.blocks; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
