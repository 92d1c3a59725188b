"""The published values of hyperspectral super-resolution, with their source.

The table of the ESSAformer paper was not accessible. These are the rows of SSPSR's authors, in the `sspsr` protocol.
The bicubic rows allow a check of data, degradation and metrics before any training.
"""

from __future__ import annotations

from essaformer.metrics import METRICS

SOURCE = "figures in the README of SSPSR's authors"

_ROWS: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    ("Chikusei", 4): {
        "bicubic": (37.6377, 0.8949, 3.4040, 0.9212, 0.0156, 6.7564),
        "GDRRN": (38.7198, 0.9193, 2.500, 0.9369, 0.0137, 5.9540),
        "SSPSR": (40.3612, 0.9413, 2.3527, 0.9565, 0.0114, 4.9894),
    },
    ("Chikusei", 8): {
        "bicubic": (34.5049, 0.8228, 5.0436, 0.8314, 0.0224, 4.8488),
        "GDRRN": (34.8153, 0.8357, 4.3160, 0.8421, 0.0214, 4.5879),
        "SSPSR": (35.8368, 0.8624, 4.0127, 0.8766, 0.0191, 4.3120),
    },
    ("Pavia Centre", 4): {
        "bicubic": (27.5874, 0.6961, 6.1399, 0.8594, 0.0437, 6.8814),
        "GDRRN": (28.4726, 0.7530, 5.4750, 0.8829, 0.0393, 6.2264),
        "SSPSR": (29.1581, 0.7903, 5.4612, 0.9003, 0.0362, 5.8014),
    },
    ("CAVE", 4): {
        "bicubic": (34.7214, 0.9277, 4.1759, 0.9868, 0.0212, 5.2719),
        "GDRRN": (38.4507, 0.9538, 3.4143, 0.9934, 0.0145, 3.5086),
        "SSPSR": (39.0892, 0.9553, 3.1846, 0.9939, 0.0138, 3.3384),
    },
}

PUBLISHED: dict[tuple[str, int, str], dict[str, float]] = {
    (dataset, scale, method): dict(zip(METRICS, values, strict=True))
    for (dataset, scale), methods in _ROWS.items()
    for method, values in methods.items()
}
"""(data set, scale, method) → metric → value, `sspsr` protocol."""

PARAMETERS = {
    (128, 4): 11_640_832, (102, 4): 11_520_998, (31, 4): 11_193_759, (128, 2): 9_132_992, (128, 8): 14_148_672,
}  # fmt: skip
"""(bands, scale) → parameters of the released form of width 256."""
