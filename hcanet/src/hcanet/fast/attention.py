"""CAFM with two passes over memory fewer than the form in `hcanet/attention.py`.

- Global: queries and keys are never normalised. Their products are divided by their norms afterwards, and the
  output projection is multiplied into the n × n attention, so that one product with the values remains.
- Local: `fc` and `dep_conv` are both linear, so the 9n/h mixtures are never computed. Output channel `d·h + o` is
  a depth-wise convolution of the 3h slots of in-slot channel d, summed over the slots. The bias of `fc` is not added
  in the zero padding, so its contribution is a small convolution of a map of ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.linear import linear
from hcanet.fast.layout import depthwise, image, pixels, transposed
from hcanet.fast.recomputed import recomputed

if TYPE_CHECKING:
    from hcanet.attention import CAFM


def cafm(module: CAFM, x: Tensor) -> Tensor:
    """Compute `CAFM`: `(B, n, H, W)` → the same, channels last in memory."""
    qkv = linear(pixels(x), module.qkv.weight.flatten(1), module.qkv.bias)
    qkv = depthwise(qkv, module.qkv_dwconv.weight, module.qkv_dwconv.bias)  # (B, H, W, 3n)
    kernels = _kernels(module)
    # The released order needs a copy as large as qkv; it is not stored, and the backward pass makes it again.
    local = recomputed(_released, qkv, kernels) if module.local_mix == "released" else _local(qkv, kernels)
    wide = _global(module, qkv.flatten(1, 2)).unflatten(1, x.shape[2:])
    return image(wide + local + _of_biases(module, x))


def _global(module: CAFM, qkv: Tensor) -> Tensor:
    """Attention over channels and its projection, `(B, N, 3n)` → `(B, N, n)`."""
    q, k, v = qkv.split(module.dim, dim=-1)
    heads = (module.num_heads, -1)
    norms = [torch.linalg.vector_norm(part, dim=1).clamp_min(1e-12) for part in (q, k)]
    # One product of all channels with all others, of which only the blocks of each head are used.
    products = q.transpose(1, 2) @ k / norms[0][..., None] / norms[1][:, None]
    own = products.unflatten(2, heads).unflatten(1, heads).diagonal(dim1=1, dim2=3)  # (B, n/h, n/h, h)
    attention = (own.permute(0, 3, 1, 2) * module.temperature).softmax(dim=-1)
    projection = module.project_out.weight.flatten(1).unflatten(1, heads)  # (n, h, n/h)
    combined = torch.einsum("ohc,bhcd->bohd", projection, attention).flatten(2)
    out = v @ combined.transpose(1, 2)
    return out if module.project_out.bias is None else out + module.project_out.bias


def _kernels(module: CAFM) -> Tensor:
    """`fc` and `dep_conv` as one: h depth-wise kernels of the slots, `(h, 3n, 1, 3, 3)`."""
    mix, groups = module.fc.weight.flatten(1), module.dep_conv.groups
    kernel = module.dep_conv.weight.unflatten(0, (groups, -1))  # (n/h, h, 9, 3, 3)
    return torch.einsum("dojyx,js->osdyx", kernel, mix).flatten(1, 2)[:, :, None]


def _local(slots: Tensor, kernels: Tensor) -> Tensor:
    """`(B, H, W, 3n)` → `(B, H, W, n)`."""
    groups = slots.shape[-1] // (3 * len(kernels))
    parts = [depthwise(slots, kernel).unflatten(-1, (-1, groups)).sum(dim=-2) for kernel in kernels]
    return parts[0] if len(parts) == 1 else torch.stack(parts, dim=-1).flatten(-2)


def _released(qkv: Tensor, kernels: Tensor) -> Tensor:
    """`_local` of the channel-first memory, read as channels last."""
    return _local(transposed(qkv.flatten(1, 2)).view(qkv.shape), kernels)


def _of_biases(module: CAFM, x: Tensor) -> Tensor:
    """The part of the local branch from the biases of `fc` and `dep_conv`, `(1, H, W, n)`."""
    border = torch.einsum("cjyx,j->cyx", module.dep_conv.weight, module.fc.bias)[:, None]
    ones = x.new_ones(1, 1, *x.shape[2:])
    return pixels(F.conv2d(ones, border, module.dep_conv.bias, padding=1))
