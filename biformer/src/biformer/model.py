"""BiFormer: *Vision Transformer with Bi-Level Routing Attention*.

Zhu, Wang, Ke, Zhang, Lau; CVPR 2023, arXiv 2303.08810. Every number is the release's. The inside
differs: names of modules follow timm (`checkpoints` maps the released ones), maps of any size are
padded where regions or patches need it, and the attention copies no keys and values.
Named variants and timm's registry are in `variants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import ClassifierHead, DropPath, Mlp, trunc_normal_
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F

from biformer.attention import BiLevelRoutingAttention, FullAttention
from common.networks.linear import linear
from common.networks.weights import Pretrained

CROP_SHARE = 224 / 256
"""Share of the resized image's side that the published evaluation keeps."""


class PatchConv(nn.Conv2d):
    """Convolution whose stride is its kernel; pads right and bottom, so that no pixel is lost."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → `(B, C', ⌈H / size⌉, ⌈W / size⌉)`."""
        bottom, right = (-length % self.stride[0] for length in x.shape[-2:])
        return super().forward(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)


class FusedMlp(Mlp):
    """timm's, without dropout and norm; on a CPU GELU is part of the first product. `(..., C)` both ways."""

    def forward(self, x: Tensor) -> Tensor:
        """fc2(gelu(fc1(x)))."""
        hidden = linear(x, self.fc1.weight, self.fc1.bias, gelu=True)
        return linear(hidden, self.fc2.weight, self.fc2.bias)


class BiFormerBlock(nn.Module):
    """Position convolution, attention and MLP, each added to its input; `(B, C, H, W)` both ways."""

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path: float, position: bool) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if position else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FusedMlp(dim, int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → the same."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class BiFormerStage(nn.Module):
    """Downsampling (none in the first stage) and blocks; `(B, C, H, W)` → `(B, C', H', W')`."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[BiFormerBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def attentions(self) -> list[nn.Module]:
        """The attention of every block."""
        return [block.attn for block in self.blocks if isinstance(block, BiFormerBlock)]

    def forward(self, x: Tensor) -> Tensor:
        """The stage's map."""
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class BiFormer(Pretrained, nn.Module):
    """The backbone: four stages, bi-level routing attention in three of them, full attention in the last.

    Args:
        in_chans: channels of the images.
        num_classes: 0 for no classifier.
        global_pool: timm's pooling before the classifier; "" for none.
        depths: blocks of the four stages.
        dims: their channels.
        mlp_ratio: hidden channels of an MLP per channel.
        head_dim: channels of a head in stages 1 to 3; stage 4 always has 8 heads.
        num_regions: S, regions along each side of a map.
        top_k: regions each region attends to, in stages 1 to 3; all of them where there are fewer, and with 0 only
            itself.
        lepe: the local terms of the attentions, 5×5 depth-wise convolutions.
        overlapping: 3×3 convolutions of stride 2 reduce the resolution; otherwise patches, as in Swin.
        position: a 3×3 depth-wise convolution before each block's attention.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        class_names: names of the classes, carried along in the saved folder for `predict.py`.
        image_size: side in pixels that the weights were trained for, carried along likewise. Other sizes work.
        crop_pct: share of the resized image that evaluation keeps, carried along likewise.

    Shape:
        `(B, in_chans, H, W)`, normalised with ImageNet's mean and standard deviation → `(B, num_classes)` logits.

    Raises:
        ValueError: options that do not fit together, or an image smaller than the region grid.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: Sequence[int] = (2, 2, 8, 2),
        dims: Sequence[int] = (64, 128, 256, 512),
        mlp_ratio: float = 3.0,
        head_dim: int = 32,
        num_regions: int = 7,
        top_k: Sequence[int] = (1, 4, 16),
        lepe: bool = True,
        overlapping: bool = True,
        position: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        class_names: Sequence[str] | None = None,
        image_size: int = 224,
        crop_pct: float = CROP_SHARE,
    ) -> None:
        super().__init__()
        if len(depths) != 4 or len(dims) != 4 or len(top_k) != 3:
            raise ValueError(
                f"expected four depths, four dims and three top_k, got {depths}, {dims} and {top_k}".replace("'", "")
            )
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"got {len(class_names)} class_names for {num_classes} classes")
        self.in_chans, self.num_classes, self.num_regions = in_chans, num_classes, num_regions
        self.class_names = list(class_names) if class_names else None
        self.image_size, self.crop_pct = image_size, crop_pct
        self.num_features = self.head_hidden_size = dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)
        ]
        self.stem = _overlapping_stem(in_chans, dims[0]) if overlapping else _patch_stem(in_chans, dims[0])
        drop_paths = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        stages = []
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):

            def attention(i: int = i, dim: int = dim) -> nn.Module:
                kernel = 5 if lepe else 0
                if i == 3:
                    return FullAttention(dim, lepe_kernel=kernel)
                routes = min(top_k[i], num_regions**2)
                return BiLevelRoutingAttention(dim, dim // head_dim, num_regions, routes, lepe_kernel=kernel)

            downsample = nn.Identity() if i == 0 else _downsample(dims[i - 1], dim, overlapping)
            blocks = [BiFormerBlock(dim, attention(), mlp_ratio, next(drop_paths), position) for _ in range(depth)]
            stages.append(BiFormerStage(downsample, blocks))
        self.stages = nn.Sequential(*stages)
        self.norm: nn.Module = nn.BatchNorm2d(dims[-1])
        self.head = ClassifierHead(dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(_init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised last map, `(B, dims[-1], ⌈H / 32⌉, ⌈W / 32⌉)`."""
        return self.norm(self.stages(self._stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features → logits; without the classifier if `pre_logits`."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps of several stages, as timm defines it.

        Args:
            x: images.
            indices: which stages; the last n if a number, all if None.
            norm: apply the last norm to the last stage's map.
            stop_early: do not compute stages after the last one wanted.
            output_fmt: "NCHW" is the only one.
            intermediates_only: return the maps without the final features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt}")
        take, last_wanted = feature_take_indices(len(self.stages), indices)
        maps, last = [], len(self.stages) - 1
        x = self._stem(x)
        for i, stage in enumerate(self.stages[: last_wanted + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                maps.append(self.norm(x) if norm and i == last else x)
        if intermediates_only:
            return maps
        return (self.norm(x) if i == last else x), maps

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one wanted, the last norm and the classifier; return the indices kept."""
        take, last_wanted = feature_take_indices(len(self.stages), indices)
        shorter = last_wanted < len(self.stages) - 1
        self.stages = self.stages[: last_wanted + 1]
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if shorter:
            self.num_features = self.head_hidden_size = self.feature_info[last_wanted]["num_chs"]
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; the former class names are removed."""
        self.num_classes, self.class_names = num_classes, None
        self.head.reset(num_classes, global_pool, in_features=self.num_features)
        if isinstance(self.head.fc, nn.Linear):
            _init_linear(self.head.fc)
        saved: Any = self._hub_mixin_config  # what `save_pretrained` writes
        saved |= {"num_classes": num_classes, "class_names": None}
        if global_pool is not None:
            saved |= {"global_pool": global_pool}

    @property
    def least_size(self) -> int:
        """Smallest side of an image, in pixels: one token of the first map per region."""
        return 4 * (self.num_regions - 1) + 1

    def each_stage(self) -> list[BiFormerStage]:
        """The stages, for reading."""
        return [stage for stage in self.stages if isinstance(stage, BiFormerStage)]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of storing their intermediate results."""
        for stage in self.each_stage():
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay besides norms and biases: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups in the order of depth, for layer-wise learning rates."""
        blocks = (
            r"^stages\.(\d+)"
            if coarse
            else [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ]
        )
        return {"stem": r"^stem", "blocks": blocks}

    def _stem(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.least_size:
            raise ValueError(
                f"an image of {x.shape[-2]}x{x.shape[-1]} pixels is smaller than the grid of its first map, "
                f"{self.num_regions}x{self.num_regions} regions; {self.least_size} pixels are the least"
            )
        return self.stem(x.contiguous(memory_format=torch.channels_last))


def _overlapping_stem(in_chans: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim),
    )


def _patch_stem(in_chans: int, dim: int) -> nn.Sequential:
    return nn.Sequential(PatchConv(in_chans, dim, 4), nn.BatchNorm2d(dim))


def _downsample(dim: int, wider: int, overlapping: bool) -> nn.Sequential:
    if overlapping:
        return nn.Sequential(nn.Conv2d(dim, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider))
    return nn.Sequential(nn.BatchNorm2d(dim), PatchConv(dim, wider, 2))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
