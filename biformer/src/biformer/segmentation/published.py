"""The paper's ADE20K values, with their sources."""

from __future__ import annotations

_README = "the authors' README of semantic segmentation"

PUBLISHED: dict[tuple[str, str, bool], tuple[float, str]] = {
    ("biformer_small", "semantic_fpn", False): (48.9, _README),
    ("biformer_base", "semantic_fpn", False): (49.9, _README),
    ("biformer_small", "upernet", False): (49.8, _README),
    ("biformer_base", "upernet", False): (51.0, _README),
    ("biformer_small", "upernet", True): (50.8, _README),
    ("biformer_base", "upernet", True): (51.7, _README),
}
"""(variant, head, multi-scale) → (mIoU in percent on ADE20K's validation images, source)."""
