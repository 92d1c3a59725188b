"""BiFormer as the backbone of segmentation and detection: four maps instead of one classification.

As the authors' `BiFormer_mm`: the network of `variants` without classifier and last norm, and a channel
LayerNorm of its own for each stage's map. The norm touches the output only; the next stage gets the map
without it. What segmentation and detection share stands here too: frozen BatchNorm, ImageNet weights, and
parameter groups.

Differs from the release: there the BatchNorms of the segmentation backbone are synchronised over the GPUs
and their statistics go on changing; `freeze_batch_norm` keeps ImageNet's.
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
    """Four normalised maps of an image, at 1/4, 1/8, 1/16 and 1/32 of its sides.

    Args:
        variant: a name of `list_models`.
        num_regions: S, regions along each side of every map; the authors take 8 for segmentation and 16
            for detection. Maps that S does not divide are padded inside the attention.
        drop_path_rate: stochastic depth of the last block.
        freeze_batch_norm: keep the running statistics of every BatchNorm in training; weights and
            biases go on learning.
        overrides: further keywords of `BiFormer`.

    Attributes:
        channels: of the four maps.
        strides: pixels per position of the four maps.

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
        """Take the weights of an ImageNet classifier, all but its classifier and last norm.

        Args:
            path: a model folder of ours, or the authors' released file.

        Raises:
            UserError: no such file, damaged, another model's or another variant's.
        """
        source = load_model(path)
        if _layout(source) != _layout(self.backbone):
            raise UserError(
                f"{path}: holds another variant ({name_of(source)}, {_layout(source)}) than {self.variant} "
                f"({_layout(self.backbone)}); name the variant that the weights are of"
            )
        tensors = {
            name: value for name, value in source.state_dict().items() if not name.startswith(("head.", "norm."))
        }
        load_strictly(self.backbone, tensors, str(path))


def parameter_groups(
    model: nn.Module, weight_decay: float, *, without_decay: Sequence[str] = ("norm",)
) -> list[dict[str, Any]]:
    """Two groups for an optimiser: parameters with weight decay, and those without.

    Args:
        model: whose parameters that require a gradient are taken, in its order.
        weight_decay: of the first group.
        without_decay: a parameter whose name contains one of these has none. The authors' rule of
            UPerNet and Mask R-CNN is "norm", which spares LayerNorms but neither biases nor BatchNorms;
            their Semantic FPN and RetinaNet spare nothing.
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
