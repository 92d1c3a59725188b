"""The named variants, also in timm's registry.

After `import biformer`, `timm.create_model("biformer_small", pretrained=..., features_only=...)` works. The addresses
of the weights are those of the authors' release; we could not test them. For a file that was downloaded by hand use
`pretrained_cfg_overlay={"file": PATH}`.
"""

from __future__ import annotations

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from biformer.checkpoints import from_published
from biformer.model import CROP_SHARE, BiFormer
from common.networks import variants

_VARIANTS: dict[str, dict[str, Any]] = {
    "biformer_tiny": {},
    "biformer_small": {"depths": (4, 4, 18, 4)},
    "biformer_base": {"depths": (4, 4, 18, 4), "dims": (96, 192, 384, 768)},
    # The layout of Swin-T, which the paper uses in its ablations.
    "biformer_stl": {
        "depths": (2, 2, 6, 2),
        "dims": (96, 192, 384, 768),
        "mlp_ratio": 4.0,
        "overlapping": False,
        "position": False,
    },
}
_DRIVE = "https://api.onedrive.com/v1.0/shares/s!{}/root/content"


def _cfg(share: str) -> dict[str, Any]:
    return {
        "url": _DRIVE.format(share),
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": CROP_SHARE,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0",
        "classifier": "head.fc",
        "paper_ids": "arXiv:2303.08810",
        "paper_name": "BiFormer: Vision Transformer with Bi-Level Routing Attention",
        "origin_url": "https://github.com/rayleizhu/BiFormer",
    }


default_cfgs = generate_default_cfgs(
    {
        "biformer_tiny.in1k": _cfg("AkBbczdRlZvChHEOoGkgwgQzEDlM"),
        "biformer_small.in1k": _cfg("AkBbczdRlZvChHDyM-x9KWRBZ832"),
        "biformer_base.in1k": _cfg("AkBbczdRlZvChHI_XPhoadjaNxtO"),
        "biformer_stl.in1k": _cfg("AkBbczdRlZvChSf-m7ujkvx9lIQ1"),
    }
)


def list_models() -> list[str]:
    """Names for `create_model`: tiny, small and base in the order of size, then `biformer_stl` with Swin-T's layout."""
    return list(_VARIANTS)


def create_model(name: str = "biformer_tiny", **overrides: Any) -> BiFormer:
    """Build a named variant with random weights.

    Args:
        name: biformer_tiny (13.1 M parameters), biformer_small (25.5 M), biformer_base (56.8 M) or
            biformer_stl (28.4 M).
        overrides: keywords of `BiFormer` that replace the variant's.

    Raises:
        ValueError: unknown name or keyword; the message lists the valid ones.
    """
    return variants.build(BiFormer, _VARIANTS, name, overrides)


def name_of(model: BiFormer) -> str:
    """Name of the variant that has the depths and widths of a network; "biformer" if there is none."""
    blocks = [len(stage.blocks) for stage in model.each_stage()]
    for name, keywords in _VARIANTS.items():
        depths, dims = keywords.get("depths", (2, 2, 8, 2)), keywords.get("dims", (64, 128, 256, 512))
        if blocks == list(depths) and [info["num_chs"] for info in model.feature_info] == list(dims):
            return name
    return "biformer"


@register_model
def biformer_tiny(pretrained: bool = False, **keywords: Any) -> BiFormer:
    """13.1 M parameters, 2.2 G multiply-adds at 224²."""
    return _build("biformer_tiny", pretrained, keywords)


@register_model
def biformer_small(pretrained: bool = False, **keywords: Any) -> BiFormer:
    """25.5 M parameters, 4.5 G multiply-adds at 224²."""
    return _build("biformer_small", pretrained, keywords)


@register_model
def biformer_base(pretrained: bool = False, **keywords: Any) -> BiFormer:
    """56.8 M parameters, 9.8 G multiply-adds at 224²."""
    return _build("biformer_base", pretrained, keywords)


@register_model
def biformer_stl(pretrained: bool = False, **keywords: Any) -> BiFormer:
    """28.4 M parameters, 4.6 G multiply-adds at 224²."""
    return _build("biformer_stl", pretrained, keywords)


def _build(name: str, pretrained: bool, keywords: dict[str, Any]) -> BiFormer:
    return build_model_with_cfg(
        BiFormer,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        pretrained_filter_fn=from_published,
        **_VARIANTS[name] | keywords,
    )
