"""The paper's table values, each with the place where it was read.

The paper's own tables could not be read; these are reprints in other papers and projects, which
agree with each other.
"""

from __future__ import annotations

_SOURCE = "reprinted in the MLWNet paper and two further places"

PUBLISHED: dict[tuple[str, str], tuple[float, str]] = {
    ("GoPro", "PSNR (dB)"): (34.21, _SOURCE),
    ("GoPro", "SSIM (3-D)"): (0.969, _SOURCE),
    ("HIDE", "PSNR (dB)"): (31.62, _SOURCE),
    ("HIDE", "SSIM (3-D)"): (0.946, _SOURCE),
    ("RealBlur-R", "PSNR (dB)"): (40.11, _SOURCE),
    ("RealBlur-R", "SSIM"): (0.973, _SOURCE),
    ("RealBlur-J", "PSNR (dB)"): (32.62, _SOURCE),
    ("RealBlur-J", "SSIM"): (0.933, _SOURCE),
}
"""(data set, metric) → (value, source). Which SSIM the paper printed is not stated there; deblurring
papers use the 3-D Gaussian, so the GoPro and HIDE values stand beside that one."""

PARAMETERS = 16_560_474
MULTIPLY_ADDS_256 = 131.8e9
"""At 256 x 256 (MLWNet paper); 131.4e9 counting convolutions only."""
