"""pycocotools, which detection alone needs; `pip install 'fullpaper-biformer[detection]'` brings it."""

from __future__ import annotations

from functools import cache
from typing import Any

from common.errors import extra


@cache
def coco_mask() -> Any:
    """`pycocotools.mask`: polygons, run lengths and masks.

    Raises:
        UserError: it is not installed.
    """
    with extra("fullpaper-biformer[detection]"):
        from pycocotools import mask  # noqa: PLC0415
    return mask


@cache
def coco_tools() -> tuple[Any, Any]:
    """pycocotools' classes `COCO` and `COCOeval`.

    Raises:
        UserError: it is not installed.
    """
    with extra("fullpaper-biformer[detection]"):
        from pycocotools.coco import COCO  # noqa: PLC0415
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    return COCO, COCOeval


def run_counts(text: str) -> list[int]:
    """The counts in COCO's compressed run lengths, before anything is decoded with them.

    Each count is a number of 5-bit digits, least first, written as characters from "0"; from the fourth
    count on it is the difference from the count before the last.

    Raises:
        ValueError: the text ends in the middle of a count, or holds other characters.
    """
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"the character {character!r} is in no count")
        value |= (code & 31) << 5 * digits
        digits += 1
        if code & 32:  # more digits follow
            continue
        if code & 16:  # the sign of the last digit
            value -= 1 << 5 * digits
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = digits = 0
    if digits:
        raise ValueError("the last count is not complete")
    return counts
