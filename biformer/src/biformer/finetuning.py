"""The network at the start of a training run: new, or with given weights and a classifier for the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from biformer.checkpoints import load_model
from biformer.model import BiFormer
from biformer.presets import Config
from biformer.variants import create_model
from common.config import build
from common.errors import UserError


def starting_model(config: Config, classes: Sequence[str]) -> BiFormer:
    """Build `config.model` for `classes`, with `config.weights` if there are any.

    If the weights are for the same classes, their classifier is kept; otherwise it is new.

    Raises:
        UserError: the variant does not exist, or the weights are of another variant.
    """
    model = build(
        create_model,
        config.model,
        config.network,
        num_classes=len(classes),
        num_regions=config.num_regions,
        drop_path_rate=config.drop_path,
        class_names=list(classes),
        image_size=config.image_size,
        crop_pct=config.crop_pct,
    )
    if config.weights is None:
        return model
    source = load_model(config.weights)
    given, ours = source.state_dict(), model.state_dict()
    if _backbone_shapes(given) != _backbone_shapes(ours):
        raise UserError(
            f"{config.weights}: holds another variant ({_summary(source)}) than --model {config.model} "
            f"({_summary(model)}); choose the variant of the weights"
        )
    same_classes = source.num_classes == len(classes) and source.class_names in (None, list(classes))
    if not same_classes:
        given |= {name: value for name, value in ours.items() if name.startswith("head.")}
    model.load_state_dict(given)
    return model


def _backbone_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items() if not name.startswith("head.")}


def _summary(model: BiFormer) -> str:
    depths = "-".join(str(len(stage.blocks)) for stage in model.each_stage())
    widths = "-".join(str(info["num_chs"]) for info in model.feature_info)
    return f"blocks {depths}, widths {widths}"
