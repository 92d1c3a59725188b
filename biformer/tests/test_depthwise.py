"""The gradient of our depth-wise convolution equals PyTorch's."""

import pytest
import torch
from torch import nn

from biformer.fast.depthwise import DepthwiseConv, depthwise


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_gradients_are_those_of_conv2d(kernel):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, dtype=torch.float64)
    operands = (x, conv.weight, conv.bias)
    ours, theirs = DepthwiseConv.apply(*operands), conv(x)
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(theirs)
    for mine, expected in zip(
        torch.autograd.grad(ours, operands, grad), torch.autograd.grad(theirs, operands, grad), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_it_is_used_for_float32_training_only():
    conv = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    x = torch.randn(1, 4, 8, 8)
    assert depthwise(conv, x).grad_fn.name().startswith("DepthwiseConv")
    with torch.no_grad():
        assert torch.equal(depthwise(conv, x), conv(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise(conv, x).dtype == torch.bfloat16
    assert not depthwise(conv.double(), x.double()).grad_fn.name().startswith("DepthwiseConv")
