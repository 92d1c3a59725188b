"""The block fulfils the contract of blocks for other networks; without gain it is the paper's module."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from lsgavit.blocks import LSGABlock
from support.blocks import BlockContract


class TestLSGABlock(BlockContract):
    block = staticmethod(LSGABlock)
    keywords: ClassVar[dict[str, Any]] = {"window": 8}

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        """Window by window through `LSGAttention`; the maps are whole windows."""
        result = x.clone()
        for top in range(0, x.shape[2], 8):
            for left in range(0, x.shape[3], 8):
                window = x[:, :, top : top + 8, left : left + 8]
                tokens = block.attention(window.flatten(2).transpose(1, 2))
                result[:, :, top : top + 8, left : left + 8] = tokens.transpose(1, 2).reshape(window.shape)
        return result


def test_windows_of_seven_pixels_are_the_default() -> None:
    block = LSGABlock(48)
    assert (block.window, block.attention.window, block.attention.num_heads) == (7, (7, 7), 2)
    assert LSGABlock(64).attention.num_heads == 4
    paper = LSGABlock(32, window=5, token_mixing=False, position_bias="spatial")
    assert set(paper.state_dict()) == {
        *("gain", "norm.weight", "norm.bias", "attention.qkv.weight", "attention.qkv.bias"),
        *("attention.out.weight", "attention.out.bias"),
    }
