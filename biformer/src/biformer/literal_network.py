"""The whole network as the authors wrote it, for tests and the benchmark.

It follows `biformer.py`, `bra_legacy.py` and `common.py` of the release: einops changes layouts, keys and values are
gathered as one tensor, local terms are convolutions in channels-first layout, and attention weights are stored. Every
function takes the weights from one of our modules. The sides of maps must be multiples of the number of regions.
"""

from __future__ import annotations

from einops import rearrange
from timm.layers import Mlp
from torch import Tensor, nn

from biformer.attention import BiLevelRoutingAttention, FullAttention
from biformer.literal import gather_regions
from biformer.model import BiFormer
from biformer.stages import BiFormerBlock, BiFormerStage


def routing_attention(module: BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """`BiLevelRoutingAttention` with the published options, `(B, H, W, C)` → the same."""
    assert module.lepe is not None, "the published options have a local term"
    side, heads, dim = module.num_regions, module.num_heads, module.dim
    height, width = (length // side for length in x.shape[1:3])
    x = rearrange(x, "n (j h) (i w) c -> n (j i) h w c", j=side, i=side)
    q, kv = nn.Linear.forward(module.qkv, x).split([dim, 2 * dim], dim=-1)
    region_q, region_k = q.mean([2, 3]).detach(), kv[..., :dim].mean([2, 3]).detach()
    local = rearrange(kv[..., dim:], "n (j i) h w c -> n c (j h) (i w)", j=side, i=side).contiguous()
    local = rearrange(module.lepe(local), "n c h w -> n h w c")
    affinity = (region_q * module.scale) @ region_k.transpose(-2, -1)
    routes = affinity.topk(module.top_k, dim=-1).indices
    k, v = gather_regions(rearrange(kv, "n r h w c -> n r (h w) c"), routes).split([dim, dim], dim=-1)
    q = rearrange(q, "n r h w (m c) -> (n r) m (h w) c", m=heads)
    k = rearrange(k, "n r k t (m c) -> (n r) m c (k t)", m=heads)
    v = rearrange(v, "n r k t (m c) -> (n r) m (k t) c", m=heads)
    out = ((q * module.scale) @ k).softmax(dim=-1) @ v
    out = rearrange(out, "(n j i) m (h w) c -> n (j h) (i w) (m c)", j=side, i=side, h=height, w=width)
    return nn.Linear.forward(module.out, out + local)


def full_attention(module: FullAttention, x: Tensor) -> Tensor:
    """Attention of stage 4, `(B, H, W, C)` → the same."""
    assert module.lepe is not None, "the published options have a local term"
    height = x.shape[1]
    local = rearrange(module.lepe(rearrange(x, "n h w c -> n c h w")), "n c h w -> n h w c")
    qkv = rearrange(nn.Linear.forward(module.qkv, x), "n h w (p m c) -> p n m (h w) c", p=3, m=module.num_heads)
    q, k, v = qkv.unbind(0)
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    out = rearrange(weights @ v, "n m (h w) c -> n h w (m c)", h=height)
    return nn.Linear.forward(module.out, out + local)


def block(module: BiFormerBlock, x: Tensor) -> Tensor:
    """One block, `(B, C, H, W)` → the same."""
    if module.pos_embed is not None:
        x = x + module.pos_embed(x)
    x = x.permute(0, 2, 3, 1)
    attention = routing_attention if isinstance(module.attn, BiLevelRoutingAttention) else full_attention
    x = x + module.drop_path(attention(module.attn, module.norm1(x)))  # type: ignore[arg-type]
    x = x + module.drop_path(Mlp.forward(module.mlp, module.norm2(x)))
    return x.permute(0, 3, 1, 2)


def biformer(model: BiFormer, x: Tensor) -> Tensor:
    """The network, `(B, in_chans, H, W)` → logits."""
    x = model.stem(x)
    stage: BiFormerStage
    for stage in model.stages:  # type: ignore[assignment]
        x = stage.downsample(x)
        for module in stage.blocks:
            x = block(module, x)  # type: ignore[arg-type]
    return model.head.fc(model.norm(x).flatten(2).mean(-1))
