"""Values to compare with, with their source.

The paper's tables were not accessible: its values here are reprints in the plot scripts of DF2Net. The two small scenes
are not in the paper; the authors' released code was run on them.
"""

from __future__ import annotations

_REPRINT = "paper, reprinted in the plot scripts of DF2Net"
_RELEASED = "the released code on the same scene, three seeds"

PUBLISHED: dict[tuple[str, str], tuple[float, str]] = {
    ("indian_pines", "OA"): (94.28, _REPRINT),
    ("pavia_university", "OA"): (94.33, _REPRINT),
    ("houston2018_crop", "OA"): (97.78, _RELEASED),
    ("houston2018_crop", "AA"): (94.82, _RELEASED),
    ("houston2018_crop", "kappa"): (96.98, _RELEASED),
    ("salinas_a", "OA"): (99.75, _RELEASED),
}
"""(preset, metric) → (percent, source), for the preset's own training ratio."""

RELEASED_SPREAD: dict[tuple[str, str], float] = {
    ("houston2018_crop", "OA"): 0.59,
    ("houston2018_crop", "AA"): 1.38,
    ("houston2018_crop", "kappa"): 0.81,
    ("salinas_a", "OA"): 0.07,
}
"""Standard deviation over the seeds of the released code's runs."""

INDIAN_PINES_BY_RATIO: dict[float, float] = {0.01: 85.18, 0.02: 94.28, 0.03: 94.02, 0.04: 95.66, 0.05: 97.39}
"""Training share → OA, from the same reprint."""

PARAMETERS: dict[str, int] = {"indian_pines": 368_217, "pavia_university": 343_614, "salinas": 369_009}
SPLIT_SIZES: dict[str, tuple[int, int, int]] = {
    "indian_pines": (212, 204, 9_833),
    "pavia_university": (91, 85, 42_600),
    "salinas": (116, 108, 53_905),
}
"""Training, validation and test pixels of the published protocol."""
