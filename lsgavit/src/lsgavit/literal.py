"""LSGA-ViT's equations as the authors wrote them, for tests and the benchmark.

`LSGAttention.forward` and `LSGAViT.forward` compute the same numbers faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgavit.attention import LSGAttention
from lsgavit.model import Block, LSGAViT


def attention(module: LSGAttention, x: Tensor) -> Tensor:
    """The published equations one by one, `(B, N, C)` → the same; every N × N matrix is formed."""
    batch, tokens, dim = x.shape
    if module.mix_tokens is not None and module.mix_channels is not None:
        mixing = torch.einsum("nc,bmc->bnm", module.mix_tokens, x).softmax(dim=-1)
        x = mixing @ (x @ module.mix_channels)
    qkv = nn.Linear.forward(module.qkv, x)
    q, k, v = (qkv, x, x) if module.light else qkv.chunk(3, dim=-1)
    heads = (batch, tokens, module.num_heads, dim // module.num_heads)
    q, k, v = (part.reshape(heads).transpose(1, 2) for part in (q, k, v))
    logits = (q * (dim // module.num_heads) ** -0.5) @ k.transpose(-2, -1)
    if module.bias is not None:
        logits = logits + module.bias
    attended = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, dim)
    return nn.Linear.forward(module.out, attended)


def block(module: Block, x: Tensor) -> Tensor:
    """Attention and MLP, each after a norm and with a residual connection; `(B, N, C)` → the same."""
    x = x + module.drop_path(attention(module.attention, module.norm1(x)))
    first, activation, last = module.mlp
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    hidden = activation(F.linear(module.norm2(x), first.weight, first.bias))
    return x + module.drop_path(F.linear(hidden, last.weight, last.bias))


def lsgavit(model: LSGAViT, x: Tensor) -> Tensor:
    """Windows `(B, bands, height, width)` → logits `(B, num_classes)`."""
    x = model.tokenizer(x)
    for part in model.blocks:
        x = block(part, x) if isinstance(part, Block) else part(x)
    return model.head(model.norm(x).mean(dim=1))
