"""BiFormer: *Vision Transformer with Bi-Level Routing Attention*.

Zhu, Wang, Ke, Zhang, Lau; CVPR 2023, arXiv 2303.08810. Outputs and gradients equal those of the release. These points
differ: modules have timm's names (`checkpoints` converts the released ones), maps of any size are padded where regions
or patches need it, and the attention does not copy keys and values. Named variants are in `variants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import ClassifierHead
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from biformer.attention import BiLevelRoutingAttention, FullAttention
from biformer.stages import BiFormerBlock, BiFormerStage, downsampling, init_linear, stem
from common.networks.weights import Pretrained

CROP_SHARE = 224 / 256
"""Share of the resized image's side that the centre crop of the published evaluation keeps."""


class BiFormer(Pretrained, nn.Module):
    """The network: three stages with bi-level routing attention, a last one with full attention, and a classifier.

    Args:
        in_chans: channels of the images.
        num_classes: number of classes; 0 for no classifier.
        global_pool: timm's pooling before the classifier; "" for none.
        depths: number of blocks of each stage.
        dims: channels of each stage.
        mlp_ratio: hidden channels of an MLP per input channel.
        head_dim: channels of a head in stages 1 to 3; stage 4 always has 8 heads.
        num_regions: S, regions along each side of a map.
        top_k: number of regions that each region attends to in stages 1 to 3, at most all of them; with 0 a region
            attends only to itself.
        lepe: whether the attentions have local terms (5×5 depth-wise convolutions).
        overlapping: reduce the resolution with 3×3 convolutions of stride 2; False uses patches as in Swin.
        position: whether there is a 3×3 depth-wise convolution before the attention of each block.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 in the first block.
        class_names: names of the classes; stored in the model folder for `predict.py`.
        image_size: side of the training images in pixels; stored in the model folder. Other sizes work too.
        crop_pct: share of the resized image's side that evaluation keeps; stored in the model folder.

    Shape:
        `(B, in_chans, H, W)`, normalised with ImageNet's mean and standard deviation → `(B, num_classes)` logits.

    Raises:
        ValueError: options that contradict each other, or an image smaller than the region grid.
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
        self.stem = stem(in_chans, dims[0], overlapping)
        drop_paths = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        stages = []
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):

            def attention(i: int = i, dim: int = dim) -> nn.Module:
                kernel = 5 if lepe else 0
                if i == 3:
                    return FullAttention(dim, lepe_kernel=kernel)
                routes = min(top_k[i], num_regions**2)
                return BiLevelRoutingAttention(dim, dim // head_dim, num_regions, routes, lepe_kernel=kernel)

            downsample = nn.Identity() if i == 0 else downsampling(dims[i - 1], dim, overlapping)
            blocks = [BiFormerBlock(dim, attention(), mlp_ratio, next(drop_paths), position) for _ in range(depth)]
            stages.append(BiFormerStage(downsample, blocks))
        self.stages = nn.Sequential(*stages)
        self.norm: nn.Module = nn.BatchNorm2d(dims[-1])
        self.head = ClassifierHead(dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(init_linear)

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
        """The maps of several stages, as timm defines this method.

        Args:
            x: images `(B, in_chans, H, W)`.
            indices: numbers of the stages; a single number n means the last n stages, None means all.
            norm: apply the last norm to the map of the last stage.
            stop_early: do not compute stages after the last requested one.
            output_fmt: must be "NCHW".
            intermediates_only: return only the maps, without the final features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt}")
        take, last_requested = feature_take_indices(len(self.stages), indices)
        maps, last = [], len(self.stages) - 1
        x = self._stem(x)
        for i, stage in enumerate(self.stages[: last_requested + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                maps.append(self.norm(x) if norm and i == last else x)
        if intermediates_only:
            return maps
        return (self.norm(x) if i == last else x), maps

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last requested one, the last norm and the classifier; return the kept indices."""
        take, last_requested = feature_take_indices(len(self.stages), indices)
        shorter = last_requested < len(self.stages) - 1
        self.stages = self.stages[: last_requested + 1]
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if shorter:
            self.num_features = self.head_hidden_size = self.feature_info[last_requested]["num_chs"]
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier and remove the class names."""
        self.num_classes, self.class_names = num_classes, None
        self.head.in_features = self.num_features  # fewer if `features_only` has removed the last stages
        self.head.reset(num_classes, global_pool)
        if isinstance(self.head.fc, nn.Linear):
            init_linear(self.head.fc)
        saved: Any = self._hub_mixin_config  # `save_pretrained` writes it
        saved |= {"num_classes": num_classes, "class_names": None}
        if global_pool is not None:
            saved |= {"global_pool": global_pool}

    @property
    def least_size(self) -> int:
        """Smallest side of an image in pixels: every region of the first map has at least one token."""
        return 4 * (self.num_regions - 1) + 1

    def each_stage(self) -> list[BiFormerStage]:
        """The stages, with their type."""
        return [stage for stage in self.stages if isinstance(stage, BiFormerStage)]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of storing their intermediate results."""
        for stage in self.each_stage():
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Further parameters without weight decay, besides norms and biases: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names in the order of depth, for layer-wise learning rates in timm."""
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
