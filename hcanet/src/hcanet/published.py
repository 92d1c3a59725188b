"""Published values of hyperspectral denoising, with their source.

The tables of the HCANet paper were not accessible. These are values of related papers. The sources use other
definitions and partly other scenes for noise of the same strength, so SSIM and SAM of different sources cannot be
compared.
"""

from __future__ import annotations

MAFNET = "table image in the README of MAFNet (SAM in radians)"
HSIR = "README of HSIR (SAM in radians)"
SERT = "table image in the repository of SERT (SAM in degrees)"

PUBLISHED: dict[str, dict[str, dict[str, tuple[float | None, ...]]]] = {
    MAFNET: {
        "noisy": {
            "case1": (17.99, 0.160, 0.853), "case2": (17.62, 0.151, 0.855), "case3": (17.53, 0.150, 0.871),
            "case4": (15.05, 0.117, 0.900), "case5": (14.18, 0.095, 0.918),
        },
        "BM4D": {
            "case1": (35.46, 0.892, 0.137), "case2": (34.17, 0.821, 0.159), "case3": (33.65, 0.860, 0.174),
            "case4": (32.75, 0.801, 0.196), "case5": (30.81, 0.719, 0.224),
        },
        "LRTV": {
            "case1": (36.12, 0.905, 0.115), "case2": (34.89, 0.890, 0.129), "case3": (34.02, 0.847, 0.160),
            "case4": (33.14, 0.795, 0.182), "case5": (31.10, 0.735, 0.211),
        },
        "QRNN3D": {
            "case1": (42.51, 0.969, 0.043), "case2": (41.78, 0.960, 0.049), "case3": (40.88, 0.954, 0.059),
            "case4": (37.71, 0.938, 0.095), "case5": (37.04, 0.922, 0.105),
        },
        "MAFNet": {
            "case1": (43.54, 0.974, 0.028), "case2": (42.50, 0.968, 0.030), "case3": (41.77, 0.966, 0.032),
            "case4": (37.77, 0.946, 0.067), "case5": (37.19, 0.938, 0.065),
        },
    },
    HSIR: {
        "noisy": {"σ 30": (18.59, 0.110, None), "σ 50": (14.15, 0.046, 0.991), "σ 70": (11.23, 0.025, 1.105)},
        "BM4D": {"σ 30": (38.45, 0.934, 0.126), "σ 50": (35.60, 0.889, 0.169), "σ 70": (33.70, 0.845, 0.207)},
        "QRNN3D": {"σ 30": (42.22, 0.988, 0.062), "σ 50": (40.15, 0.982, 0.074), "σ 70": (38.30, 0.974, 0.094)},
        "GRUNet": {"σ 30": (42.84, 0.989, 0.052), "σ 50": (40.75, 0.983, 0.062), "σ 70": (39.02, 0.977, 0.080)},
    },
    SERT: {
        "noisy": {"σ 30": (18.59, 0.5523, 37.9), "σ 50": (14.15, 0.3476, 49.01), "σ 70": (11.23, 0.2301, 56.45)},
        "BM4D": {"σ 30": (37.69, 0.9872, 5.02), "σ 50": (34.96, 0.9850, 6.81), "σ 70": (33.15, 0.9554, 8.40)},
        "QRNN3D": {"σ 30": (42.18, 0.9955, 2.21), "σ 50": (40.05, 0.9929, 2.63), "σ 70": (38.09, 0.9883, 3.42)},
        "SERT": {"σ 30": (43.56, 0.9969, 1.77), "σ 50": (41.33, 0.9949, 2.05), "σ 70": (39.82, 0.9929, 2.30)},
    },
}  # fmt: skip
"""Source → method → noise → (PSNR in dB, SSIM, SAM), on ICVL."""

PARAMETERS = {31: 4_607_741, 103: 4_887_677}
"""Bands → parameters of the published form of width 48, measured on the released network."""


def published_lines(noise: str) -> list[list[str]]:
    """Rows (source, method, PSNR, SSIM, SAM) of one kind of noise on ICVL, as text."""
    return [
        [source, method, *("" if value is None else f"{value:g}" for value in found[noise])]
        for source, methods in PUBLISHED.items()
        for method, found in methods.items()
        if noise in found
    ]
