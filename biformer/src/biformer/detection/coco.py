"""Access to pycocotools, which only detection needs (`pip install 'fullpaper-biformer[detection]'`)."""

from __future__ import annotations

from functools import cache
from typing import Any

from common.errors import extra


@cache
def coco_mask() -> Any:
    """The module `pycocotools.mask`, which converts between polygons, run lengths and masks.

    Raises:
        UserError: it is not installed.
    """
    with extra("fullpaper-biformer[detection]"):
        from pycocotools import mask  # noqa: PLC0415
    return mask


@cache
def coco_tools() -> tuple[Any, Any]:
    """The classes `COCO` and `COCOeval` of pycocotools.

    Raises:
        UserError: it is not installed.
    """
    with extra("fullpaper-biformer[detection]"):
        from pycocotools.coco import COCO  # noqa: PLC0415
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    return COCO, COCOeval


def run_counts(text: str) -> list[int]:
    """Decode the counts of COCO's compressed run lengths, to check them before pycocotools uses them.

    Each count consists of 5-bit digits, the lowest first, and each digit is a character from "0" on. From the fourth
    count on, the difference from the count two places before is stored.

    Raises:
        ValueError: the text ends in the middle of a count, or has other characters.
    """
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"the character {character!r} cannot be part of a count")
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
