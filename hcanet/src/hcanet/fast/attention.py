"""CAFM with two passes less over memory than its plain form.

- Global: queries and keys are never normalised. Their products are divided by their norms afterwards, and the
  output projection is multiplied into the n × n attention, so that one product with the values remains.
- Local: `fc` and `dep_conv` are both linear, so the 9n/h mixtures are never made. Output channel `d·h + o` is a
  depth-wise convolution of the 3h slots of in-slot channel d, summed over the slots. The bias of `fc` does not
  reach the zero border, so its part of the result is a small convolution of a map of ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.networks.linear import linear
from hcanet.fast.layout import depthwise, image, pixels, transposed

if TYPE_CHECKING:
    from hcanet.attention import CAFM


def cafm(module: CAFM, x: Tensor) -> Tensor:
    """What `CAFM` computes: `(B, n, H, W)` → the same, channels last in memory."""
    batch, _, height, width = x.shape
    qkv = linear(pixels(x), module.qkv.weight.flatten(1), module.qkv.bias)
    qkv = depthwise(qkv, module.qkv_dwconv.weight, module.qkv_dwconv.bias).view(batch, height * width, -1)
    if torch.is_grad_enabled() and module.local_mix == "released":
        # A copy of qkv in another order is as large, so the backward pass makes it again.
        local = checkpoint(_local, module, qkv, height, width, use_reentrant=False, preserve_rng_state=False)
    else:
        local = _local(module, qkv, height, width)
    return image(_global(module, qkv).unflatten(1, (height, width)) + local)


def _global(module: CAFM, qkv: Tensor) -> Tensor:
    """Attention over channels and its projection, `(B, N, 3n)` → `(B, N, n)`."""
    q, k, v = qkv.split(module.dim, dim=-1)
    heads = (module.num_heads, -1)
    norms = [torch.linalg.vector_norm(part, dim=1).clamp_min(1e-12) for part in (q, k)]
    # All channels with all others is one product; of it the heads' own blocks are taken.
    products = q.transpose(1, 2) @ k / norms[0][..., None] / norms[1][:, None]
    own = products.unflatten(2, heads).unflatten(1, heads).diagonal(dim1=1, dim2=3)  # (B, n/h, n/h, h)
    attention = (own.permute(0, 3, 1, 2) * module.temperature).softmax(dim=-1)
    projection = module.project_out.weight.flatten(1).unflatten(1, heads)  # (n, h, n/h)
    combined = torch.einsum("ohc,bhcd->bohd", projection, attention).flatten(2)
    out = v @ combined.transpose(1, 2)
    return out if module.project_out.bias is None else out + module.project_out.bias


def _local(module: CAFM, qkv: Tensor, height: int, width: int) -> Tensor:
    """`fc` and `dep_conv` as one: `(B, N, 3n)` → `(B, H, W, n)`."""
    slots = qkv
    if module.local_mix == "released":  # the channel-first memory, read as channels last
        slots = transposed(qkv).view(qkv.shape)
    slots = slots.view(len(qkv), height, width, -1)
    mix, groups = module.fc.weight.flatten(1), module.dep_conv.groups
    kernel = module.dep_conv.weight.unflatten(0, (groups, -1))  # (n/h, h, 9, 3, 3)
    joined = torch.einsum("dojyx,js->osdyx", kernel, mix)  # (h, 3h, n/h, 3, 3)
    parts = [
        depthwise(slots, weight.flatten(0, 1)[:, None]).unflatten(-1, (-1, groups)).sum(dim=-2) for weight in joined
    ]
    out = parts[0] if len(parts) == 1 else torch.stack(parts, dim=-1).flatten(-2)
    border = torch.einsum("cjyx,j->cyx", module.dep_conv.weight, module.fc.bias)[:, None]
    ones = slots.new_ones(1, 1, *slots.shape[1:3])
    return out + pixels(F.conv2d(ones, border, module.dep_conv.bias, padding=1))
