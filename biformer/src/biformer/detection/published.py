"""The values of the paper's COCO table, and those that the authors measured again before the release.

Both are from the README of the release's `object_detection` folder. It says that the code "produces significantly
better performance than the paper reports". Possible reasons are the norms of the four maps, which are outside the
backbone, other library versions, or another mixed precision.
"""

from __future__ import annotations

_PAPER = "the paper, by the authors' README"
_AGAIN = "the authors' re-run, by their README"

PUBLISHED: dict[tuple[str, str, str], list[tuple[float, str]]] = {
    ("mask_rcnn", "biformer_small", "box AP"): [(47.8, _PAPER), (48.1, _AGAIN)],
    ("mask_rcnn", "biformer_small", "mask AP"): [(43.2, _PAPER), (43.6, _AGAIN)],
    ("mask_rcnn", "biformer_base", "box AP"): [(48.6, _PAPER)],
    ("mask_rcnn", "biformer_base", "mask AP"): [(43.7, _PAPER)],
    ("retinanet", "biformer_small", "box AP"): [(45.9, _PAPER), (47.3, _AGAIN)],
    ("retinanet", "biformer_base", "box AP"): [(47.1, _PAPER)],
}
"""(method, variant, metric) on COCO's val2017 → all published values as (percent, source)."""
