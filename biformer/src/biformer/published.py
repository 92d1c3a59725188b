"""The values of the paper's tables, with their sources."""

from __future__ import annotations

_README = "the authors' README"
_LOG = "the authors' training log"

PUBLISHED: dict[tuple[str, str, str], tuple[float, str]] = {
    ("biformer_tiny", "ImageNet-1K", "top-1"): (81.4, _README),
    ("biformer_small", "ImageNet-1K", "top-1"): (83.8, _README),
    ("biformer_small", "ImageNet-1K", "top-5"): (96.638, _LOG),
    ("biformer_base", "ImageNet-1K", "top-1"): (84.3, _README),
    ("biformer_stl", "ImageNet-1K", "top-1"): (82.7, _README),
}
"""(variant, data set, metric) → (percent, source). The log gives the small model's top-1 as 83.754."""

PARAMETERS = {
    "biformer_tiny": 13_142_760,
    "biformer_small": 25_536_232,
    "biformer_base": 56_804_968,
    "biformer_stl": 28_372_552,
}
"""Numbers of parameters of the released networks with 1,000 classes, counted."""

MULTIPLY_ADDS_224 = {"biformer_tiny": 2.2e9, "biformer_small": 4.5e9, "biformer_base": 9.8e9, "biformer_stl": 4.6e9}
"""For images of 224 x 224, from the authors' README."""
