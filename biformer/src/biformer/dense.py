"""BiFormer as the backbone of segmentation and detection; it returns four feature maps.

As in the authors' `BiFormer_mm`, this is the network of `variants` without classifier and last norm, and the map of
each stage has its own LayerNorm over channels. The norm is applied only to the output; the next stage gets the map
without it. Frozen BatchNorm, ImageNet weights and parameter groups for segmentation and detection are here too.

In the release, the BatchNorms of the segmentation backbone are synchronised over the GPUs and update their statistics;
`freeze_batch_norm` keeps the statistics of ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from biformer.checkpoints import load_model
from biformer.model import BiFormer
from biformer.variants import create_model, name_of
from common.errors import UserError
from common.networks.weights import load_strictly


class DenseBiFormer(nn.Module):
    """Backbone with four normalised feature maps, at 1/4, 1/8, 1/16 and 1/32 of the image's sides.

    Args:
        variant: a name from `list_models`.
        num_regions: S, regions along each side of every map; the authors use 8 for segmentation and 16 for detection.
            Maps whose sides are not multiples of S are padded inside the attention.
        drop_path_rate: stochastic depth of the last block.
        freeze_batch_norm: keep the running statistics of every BatchNorm in training; weights and biases are still
            trained.
        overrides: further keywords of `BiFormer`.

    Attributes:
        channels: channels of the four maps.
        strides: strides of the four maps in pixels.

    Shape:
        `(B, 3, H, W)`, normalised with ImageNet's mean and standard deviation → four `(B, C_i, ⌈H / s_i⌉, ⌈W / s_i⌉)`.

    Raises:
        ValueError: unknown variant or keyword; in `forward`, an image smaller than `least_size`.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        variant: str = "biformer_small",
        *,
        num_regions: int,
        drop_path_rate: float = 0.0,
        freeze_batch_norm: bool = True,
        **overrides: Any,
    ) -> None:
        super().__init__()
        keywords: dict[str, Any] = {"num_regions": num_regions, "drop_path_rate": drop_path_rate, "num_classes": 0}
        self.backbone = create_model(variant, **keywords | overrides)
        self.backbone.norm = nn.Identity()
        self.variant, self.freeze_batch_norm = variant, freeze_batch_norm
        self.channels: tuple[int, ...] = tuple(info["num_chs"] for info in self.backbone.feature_info)
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-6) for channels in self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four maps, finest first."""
        maps = self.backbone.forward_intermediates(x, intermediates_only=True)
        assert isinstance(maps, list)
        return [norm(each) for norm, each in zip(self.norms, maps, strict=True)]

    @property
    def least_size(self) -> int:
        """Smallest side of an image, in pixels."""
        return self.backbone.least_size

    def train(self, mode: bool = True) -> DenseBiFormer:
        """Training or evaluation mode; a frozen BatchNorm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of storing their intermediate results."""
        self.backbone.set_grad_checkpointing(enable)

    def load_classifier(self, path: str | Path) -> None:
        """Load the weights of an ImageNet network, without its classifier and last norm.

        Args:
            path: a model folder of ours, or the authors' released file.

        Raises:
            UserError: the file does not exist, is damaged, or has weights of another network or variant.
        """
        source = load_model(path)
        if _layout(source) != _layout(self.backbone):
            raise UserError(
                f"{path}: holds another variant ({name_of(source)}, {_layout(source)}) than {self.variant} "
                f"({_layout(self.backbone)}); choose the variant of the weights"
            )
        tensors = {
            name: value for name, value in source.state_dict().items() if not name.startswith(("head.", "norm."))
        }
        load_strictly(self.backbone, tensors, str(path))


def parameter_groups(
    model: nn.Module, weight_decay: float, *, without_decay: Sequence[str] = ("norm",)
) -> list[dict[str, Any]]:
    """Two parameter groups for an optimiser: parameters with weight decay, and parameters without.

    Args:
        model: its parameters with `requires_grad` are grouped, in their order.
        weight_decay: weight decay of the first group.
        without_decay: parameters whose name contains one of these words have no weight decay. The authors use "norm"
            for UPerNet and Mask R-CNN, which excludes LayerNorms, but neither biases nor BatchNorms; for Semantic FPN
            and RetinaNet they exclude nothing.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (spared if any(part in name for part in without_decay) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _layout(model: BiFormer) -> str:
    depths = "-".join(str(len(stage.blocks)) for stage in model.each_stage())
    widths = "-".join(str(info["num_chs"]) for info in model.feature_info)
    return f"blocks {depths}, widths {widths}"
